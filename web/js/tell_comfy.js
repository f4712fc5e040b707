// Lets ComfyUI take note of a change in a widget: for its own undo, and for the copy that a reload of the page reads. No side effects.
import { app } from "../../../scripts/app.js"

export function tellComfy() {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker
  if (tracker?.captureCanvasState) tracker.captureCanvasState()
  else tracker?.checkState?.()
}
