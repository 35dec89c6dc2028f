"""Fine-tuning of classifiers by MAE's recipe: exact to its original, resumable at any step, keeping the best epoch.

``training.finetuning.trainer.finetune`` is the whole of it in Python; ``imagexplain finetune`` is the command.

Source: He et al. 2021, "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377, and ``main_finetune.py``
of https://github.com/facebookresearch/mae; no code of theirs is here.
"""
