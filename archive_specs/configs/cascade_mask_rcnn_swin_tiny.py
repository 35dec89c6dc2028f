"""Cascade Mask R-CNN with Swin-T, as published.

Its name there: cascade_mask_rcnn_swin_tiny_patch4_window7_mstrain_480-800_giou_4conv1f_adamw_3x_coco.

Liu et al., "Swin Transformer", ICCV 2021, arXiv 2103.14030; the settings are facts of the authors' configuration
(https://github.com/SwinTransformer/Swin-Transformer-Object-Detection, Apache-2.0), over mmdet's own cascade.
mmdet reads this when an archive is built; its other instance segmenters are had in the same way.
"""

_base_ = "mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py"

box_head = {
    "type": "ConvFCBBoxHead",
    "num_shared_convs": 4,
    "num_shared_fcs": 1,
    "in_channels": 256,
    "conv_out_channels": 256,
    "fc_out_channels": 1024,
    "roi_feat_size": 7,
    "num_classes": 80,
    "reg_class_agnostic": False,
    "reg_decoded_bbox": True,
    "norm_cfg": {"type": "SyncBN", "requires_grad": True},
    "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
    "loss_bbox": {"type": "GIoULoss", "loss_weight": 10.0},
}

coder = {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0, 0.0, 0.0, 0.0]}

model = {
    "backbone": {
        "_delete_": True,
        "type": "SwinTransformer",
        "embed_dims": 96,
        "depths": [2, 2, 6, 2],
        "num_heads": [3, 6, 12, 24],
        "window_size": 7,
        "mlp_ratio": 4,
        "qkv_bias": True,
        "qk_scale": None,
        "drop_rate": 0.0,
        "attn_drop_rate": 0.0,
        "drop_path_rate": 0.2,
        "patch_norm": True,
        "out_indices": (0, 1, 2, 3),
        "with_cp": False,
        "convert_weights": False,
    },
    "neck": {"in_channels": [96, 192, 384, 768]},
    "roi_head": {
        "bbox_head": [
            {**box_head, "bbox_coder": {**coder, "target_stds": [0.1, 0.1, 0.2, 0.2]}},
            {**box_head, "bbox_coder": {**coder, "target_stds": [0.05, 0.05, 0.1, 0.1]}},
            {**box_head, "bbox_coder": {**coder, "target_stds": [0.033, 0.033, 0.067, 0.067]}},
        ]
    },
}
