from imagexplain.attribution.differences import contrast
from imagexplain.attribution.methods.ablation_cam import ablation_cam
from imagexplain.attribution.methods.attention_rollout import attention_rollout
from imagexplain.attribution.methods.attn_lrp import attn_lrp
from imagexplain.attribution.methods.bag_cam import bag_cam
from imagexplain.attribution.methods.blur_ig import blur_ig
from imagexplain.attribution.methods.deep_lift import deep_lift
from imagexplain.attribution.methods.eigen_cam import eigen_cam
from imagexplain.attribution.methods.eigen_grad_cam import eigen_grad_cam
from imagexplain.attribution.methods.expected_gradients import expected_gradients
from imagexplain.attribution.methods.feature_ablation import feature_ablation
from imagexplain.attribution.methods.fem import fem
from imagexplain.attribution.methods.finer_cam import finer_cam
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
from imagexplain.attribution.methods.kpca_cam import kpca_cam
from imagexplain.attribution.methods.layer_cam import layer_cam
from imagexplain.attribution.methods.legrad import legrad
from imagexplain.attribution.methods.libra_grad import libra_grad
from imagexplain.attribution.methods.lime import lime
from imagexplain.attribution.methods.lrp import lrp
from imagexplain.attribution.methods.occlusion import occlusion
from imagexplain.attribution.methods.rise import rise
from imagexplain.attribution.methods.score_cam import score_cam
from imagexplain.attribution.methods.shapley_cam import shapley_cam
from imagexplain.attribution.methods.shapley_sampling import shapley_sampling
from imagexplain.attribution.methods.smoothgrad import smooth, smoothgrad
from imagexplain.attribution.methods.smoothgrad_cam_plusplus import smoothgrad_cam_plusplus
from imagexplain.attribution.methods.ss_cam import ss_cam
from imagexplain.attribution.methods.transformer_attribution import transformer_attribution
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
    "attn_lrp",
    "bag_cam",
    "blur_ig",
    "combine",
    "contrast",
    "deep_lift",
    "eigen_cam",
    "eigen_grad_cam",
    "expected_gradients",
    "feature_ablation",
    "fem",
    "finer_cam",
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
    "kpca_cam",
    "layer_cam",
    "legrad",
    "libra_grad",
    "lime",
    "localize",
    "lrp",
    "normalize",
    "occlusion",
    "rise",
    "score_cam",
    "shapley_cam",
    "shapley_sampling",
    "smooth",
    "smoothgrad",
    "smoothgrad_cam_plusplus",
    "ss_cam",
    "transformer_attribution",
    "xgrad_cam",
    "xrai",
]
