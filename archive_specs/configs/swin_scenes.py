# The same network, narrow, for the ten classes of the synthetic scenes of training/.
_base_ = ["mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py", "mmdet::_base_/datasets/coco_instance.py"]

classes = ("circle", "square", "triangle", "diamond", "pentagon", "hexagon", "star", "cross", "ring", "crescent")
channels = 64
sides = (160, 160)

model = dict(
    backbone=dict(
        _delete_=True,
        type="SwinTransformer",
        embed_dims=32,
        depths=[2, 2, 2, 2],
        num_heads=[2, 4, 8, 16],
        window_size=7,
        drop_path_rate=0.05,
        out_indices=(0, 1, 2, 3),
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=channels),
    rpn_head=dict(in_channels=channels, feat_channels=channels, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels, finest_scale=28),
        mask_roi_extractor=dict(out_channels=channels, finest_scale=28),
        mask_head=dict(num_convs=2, in_channels=channels, conv_out_channels=channels, num_classes=len(classes)),
        bbox_head=[
            dict(
                type="ConvFCBBoxHead",
                num_shared_convs=2,
                num_shared_fcs=1,
                in_channels=channels,
                conv_out_channels=channels,
                fc_out_channels=128,
                roi_feat_size=7,
                num_classes=len(classes),
                bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=list(deviations)),
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                norm_cfg=dict(type="BN", requires_grad=True),
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type="GIoULoss", loss_weight=10.0),
            )
            for deviations in ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
        ],
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=300, max_per_img=150)),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=150), rcnn=dict(max_per_img=50)),
)

test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=sides, keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, metainfo=dict(classes=classes)))
