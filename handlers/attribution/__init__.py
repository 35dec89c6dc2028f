"""Attribution methods: pure functions on tensors, which know nothing of HTTP, TorchServe or files."""
