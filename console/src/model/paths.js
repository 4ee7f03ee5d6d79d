// Paths in the workspace.

/** Whether a path names something in the workspace: one with dots is folded by the browser, and leads to another address. */
export const isFilePath = (path) => path !== "" && !path.split("/").some((part) => part === "." || part === "..");
