"""Only for tests: tiny models of ComfyUI's own classes with random weights, and a plan from markup.

The diffusion models are the real ones of this ComfyUI, a few thousand weights small, so that the real samplers, conditionings
and reference latents are used. Text encoder and VAE are stand-ins: their features follow from the words and the pixels.
What conditionings reach the models is written down, for StandInConditionings to show.
"""

from __future__ import annotations

import hashlib
import sys

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import nodes
import torch
import torch.nn.functional as F
from comfy.ldm.flux.model import FluxParams

WORD_DIM, NUM_TOKENS = 32, 8
REFERENCE_SIDE = 8  # latent pixels: references are small, so that a CPU affords them
SEEN: list[dict] = []  # what models were told, in the order of the samplings

FLUX = dict(
    hidden_size=32, num_heads=2, depth=1, depth_single_blocks=1, context_in_dim=WORD_DIM, mlp_ratio=2.0, theta=2000,
)  # fmt: skip
FLUX2 = FLUX | dict(
    image_model="flux2", in_channels=128, out_channels=128, patch_size=1, vec_in_dim=None, axes_dim=[4, 4, 4, 4], qkv_bias=False,
    global_modulation=True, mlp_silu_act=True, ops_bias=False, default_ref_method="index", ref_index_scale=10.0,
)  # fmt: skip
UNET = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=32, num_res_blocks=[1, 1], channel_mult=[1, 2],
    transformer_depth=[0, 1], transformer_depth_output=[0, 0, 1, 1], transformer_depth_middle=1, num_head_channels=16,
    use_spatial_transformer=True, use_linear_in_transformer=True, context_dim=WORD_DIM, use_checkpoint=False, legacy=False,
    use_temporal_attention=False,
)  # fmt: skip
CONFIGS = {
    "sd15": ("SD15", UNET | dict(use_linear_in_transformer=False, adm_in_channels=None, num_classes=None)),
    "sdxl": ("SDXL", UNET | dict(num_classes="sequential", adm_in_channels=WORD_DIM + 6 * 256)),
    "sdxl-refiner": ("SDXLRefiner", UNET | dict(num_classes="sequential", adm_in_channels=WORD_DIM + 5 * 256)),
    "sd3": ("SD3", dict(
        in_channels=16, depth=1, adm_in_channels=WORD_DIM, pos_embed_max_size=32, pos_embed_scaling_factor=None, input_size=None,
        context_embedder_config=dict(target="torch.nn.Linear", params=dict(in_features=WORD_DIM, out_features=64)),
    )),
    "z-image": ("ZImage", dict(
        image_model="lumina2", patch_size=2, in_channels=16, dim=256, cap_feat_dim=WORD_DIM, n_layers=1, n_refiner_layers=1, n_heads=16,
        n_kv_heads=16, axes_dims=[4, 4, 8], axes_lens=[512, 512, 512], qk_norm=True, ffn_dim_multiplier=2.0, rope_theta=256.0,
        time_scale=1000.0, pad_tokens_multiple=32, z_image_modulation=True,
    )),
    "qwen-image": ("QwenImage", dict(
        image_model="qwen_image", in_channels=64, out_channels=16, num_layers=1, num_attention_heads=2, attention_head_dim=16,
        joint_attention_dim=WORD_DIM, axes_dims_rope=(4, 6, 6),
    )),
    "flux2-klein": ("Flux2", FLUX2 | dict(guidance_embed=False)),
    "flux2-dev": ("Flux2", FLUX2 | dict(guidance_embed=True)),
    "flux": ("Flux", FLUX | dict(
        image_model="flux", in_channels=16, out_channels=16, patch_size=2, vec_in_dim=WORD_DIM, axes_dim=[4, 4, 8], qkv_bias=True,
        guidance_embed=True,
    )),
}  # fmt: skip


class StandInModel:
    """MODEL, CLIP and VAE of a kind. `weights` is not read: like a loader's file name, it says what the model is."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"kind": (list(CONFIGS),), "weights": ("STRING", {"default": "tiny.safetensors"})}}

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "make"
    CATEGORY = "tests"

    def make(self, kind: str, weights: str):
        name, unet_config = CONFIGS[kind]
        if "txt_ids_dims" in FluxParams.__dataclass_fields__ and name.startswith("Flux"):  # newer cores ask for it
            unet_config = unet_config | {"txt_ids_dims": [3] if name == "Flux2" else []}
        config = getattr(comfy.supported_models, name)(dict(unet_config))
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model({}, "", device="cpu")
        generator = torch.Generator().manual_seed(0)
        for weight in model.diffusion_model.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) * 0.3  # enough for words to be seen in the picture
        model.extra_conds = written_down(model.extra_conds)
        device = comfy.model_management.get_torch_device()
        patcher = comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))
        return patcher, StandInClip(), StandInVae(model.latent_format, is_grey=weights.startswith("grey"))


def written_down(extra_conds):
    """The method by which a model takes conditionings, and a note of what it took."""

    def told(**conditioning):
        SEEN.append({
            "sign": conditioning["prompt_type"],
            "references": [digest(latent) for latent in conditioning.get("reference_latents") or ()],
            "method": conditioning.get("reference_latents_method") or "",
            "guidance": conditioning.get("guidance"),
        })  # fmt: skip
        return extra_conds(**conditioning)

    return told


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()[:12]


class StandInConditionings:
    """What models were told since it was asked last: sign, digests of the reference latents, their method, guidance."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"after": ("*",)}}

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "show"
    CATEGORY = "tests"

    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    def show(self, after):
        seen = SEEN[:]
        SEEN.clear()
        return {"ui": {"seen": seen}}


class StandInClip:
    """Features that follow from the words, and from how bright and how coloured the pictures are."""

    def tokenize(self, text, images=(), **_):
        return text, [image.float().mean(dim=(0, 1, 2)) for image in images]

    def encode_from_tokens_scheduled(self, tokens, **_):
        text, images = tokens
        generator = torch.Generator().manual_seed(int(hashlib.sha256(text.encode()).hexdigest()[:12], 16))
        words = torch.randn(1, NUM_TOKENS, WORD_DIM, generator=generator)
        for number, colour in enumerate(images):
            words[:, number, :3] += colour
        return [[words, {"pooled_output": words.mean(dim=1)}]]


class StandInVae:
    """Colours straight from the latents; a grey one draws nothing, as a broken VAE does."""

    def __init__(self, latent_format, is_grey: bool = False):
        self.is_grey = is_grey
        self.channels = latent_format.latent_channels
        self.has_time = latent_format.latent_dimensions == 3
        self.stride = 16 if self.channels == 128 else 8

    def encode(self, pixels):
        small = F.adaptive_avg_pool2d(pixels.movedim(-1, 1).float(), (REFERENCE_SIDE, REFERENCE_SIDE)) * 2 - 1
        latent = small.repeat(1, -(-self.channels // 3), 1, 1)[:, : self.channels]
        return latent[:, :, None] if self.has_time else latent

    def decode(self, latent):
        latent = latent[:, :, 0] if latent.ndim == 5 else latent
        pixels = torch.sigmoid(latent[:, :3].float() * (not self.is_grey))
        return F.interpolate(pixels, scale_factor=self.stride, mode="nearest").movedim(1, -1)


class StandInPlan:
    """A plan from markup, as Weaver Plan gives it."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"markup": ("STRING", {"multiline": True})}}

    RETURN_TYPES = ("WEAVER_PLAN",)
    FUNCTION = "read"
    CATEGORY = "tests"

    def read(self, markup: str):
        # The pack's classes exist under the name by which ComfyUI has loaded it.
        pack = nodes.NODE_CLASS_MAPPINGS["WeaverSplitPlan"].__module__.removesuffix(".nodes.split_plan")
        plan, warnings = sys.modules[f"{pack}.weaver_core.plan"].parse_markup(markup)
        if warnings:
            raise ValueError(f"the test's markup is odd: {warnings}")
        request = sys.modules[f"{pack}.weaver_core.request"].Request(prompt="a story of the tests")
        return (sys.modules[f"{pack}.nodes.values"].PlannedStory(plan=plan, request=request),)


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (StandInModel, StandInPlan, StandInConditionings)}
