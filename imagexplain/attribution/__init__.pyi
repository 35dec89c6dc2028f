from imagexplain.attribution.differences import contrast
from imagexplain.attribution.methods.ablation_cam import ablation_cam
from imagexplain.attribution.methods.attention_rollout import attention_rollout
from imagexplain.attribution.methods.bag_cam import bag_cam
from imagexplain.attribution.methods.blur_ig import blur_ig
from imagexplain.attribution.methods.deep_lift import deep_lift
from imagexplain.attribution.methods.eigen_cam import eigen_cam
from imagexplain.attribution.methods.eigen_grad_cam import eigen_grad_cam
from imagexplain.attribution.methods.expected_gradients import expected_gradients
from imagexplain.attribution.methods.feature_ablation import feature_ablation
from imagexplain.attribution.methods.full_grad import full_grad
from imagexplain.attribution.methods.gaussian_shap import gaussian_shap
from imagexplain.attribution.methods.grad_cam import grad_cam
from imagexplain.attribution.methods.grad_cam_plusplus import grad_cam_plusplus
from imagexplain.attribution.methods.gradient import gradient
from imagexplain.attribution.methods.gradient_rollout import gradient_rollout
from imagexplain.attribution.methods.guided_backprop import guided_backprop
from imagexplain.attribution.methods.guided_grad_cam import combine, guided_grad_cam
from imagexplain.attribution.methods.guided_ig import guided_ig
from imagexplain.attribution.methods.hires_cam import hires_cam
from imagexplain.attribution.methods.idgi import idgi
from imagexplain.attribution.methods.input_x_gradient import input_x_gradient
from imagexplain.attribution.methods.integrated_gradients import integrated_gradients
from imagexplain.attribution.methods.kernel_shap import kernel_shap
from imagexplain.attribution.methods.layer_cam import layer_cam
from imagexplain.attribution.methods.occlusion import occlusion
from imagexplain.attribution.methods.rise import rise
from imagexplain.attribution.methods.score_cam import score_cam
from imagexplain.attribution.methods.shapley_sampling import shapley_sampling
from imagexplain.attribution.methods.smoothgrad import smooth, smoothgrad
from imagexplain.attribution.methods.xgrad_cam import xgrad_cam
from imagexplain.attribution.methods.xrai import xrai
from imagexplain.attribution.postprocess import iou, localize, normalize
from imagexplain.attribution.registry import METHODS

UTILITIES: dict[str, str]

__all__ = [
    "METHODS",
    "UTILITIES",
    "ablation_cam",
    "attention_rollout",
    "bag_cam",
    "blur_ig",
    "combine",
    "contrast",
    "deep_lift",
    "eigen_cam",
    "eigen_grad_cam",
    "expected_gradients",
    "feature_ablation",
    "full_grad",
    "gaussian_shap",
    "grad_cam",
    "grad_cam_plusplus",
    "gradient",
    "gradient_rollout",
    "guided_backprop",
    "guided_grad_cam",
    "guided_ig",
    "hires_cam",
    "idgi",
    "input_x_gradient",
    "integrated_gradients",
    "iou",
    "kernel_shap",
    "layer_cam",
    "localize",
    "normalize",
    "occlusion",
    "rise",
    "score_cam",
    "shapley_sampling",
    "smooth",
    "smoothgrad",
    "xgrad_cam",
    "xrai",
]
