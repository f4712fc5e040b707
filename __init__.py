WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import build_extension
    return build_extension()
