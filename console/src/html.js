// The views' tools: preact, its hooks, and htm bound to it.
import htm from "htm";
import { h } from "preact";

export { Component, render } from "preact";
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
export const html = htm.bind(h);
