"""Only for tests: what ComfyUI has moved to its device, and what is in memory after a node has run."""

import gc

import comfy.model_management as management

LOADS = []
load_models = management.load_models_gpu


def load_and_tell(models, *args, **how):
    there = {id(loaded.model) for loaded in management.current_loaded_models}
    LOADS.extend(type(patcher.model).__name__ for patcher in models if id(patcher) not in there)
    return load_models(models, *args, **how)


management.load_models_gpu = load_and_tell


class MemoryProbe:
    """Objects of some classes that are alive, models that ComfyUI has on its device, and those that it has brought there."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"after": ("*",), "classes": ("STRING", {"default": ""})}}

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "count"
    CATEGORY = "tests"

    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    def count(self, after, classes):
        gc.collect()
        names = classes.split()
        alive = sum(type(thing).__name__ in names for thing in gc.get_objects())
        hosted = [type(loaded.model.model).__name__ for loaded in management.current_loaded_models]
        loads = LOADS[:]
        LOADS.clear()
        return {"ui": {"alive": [alive], "hosted": hosted, "loads": loads}}


NODE_CLASS_MAPPINGS = {"MemoryProbe": MemoryProbe}
