// Where the page gets a picture from. No side effects.
import { api } from "../../../scripts/api.js"

/** The address of a file of ComfyUI's output folder. */
export function viewUrl({ filename, subfolder, type }) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`)
}
