// Builds elements. Text is always text: nothing here parses HTML.

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * An element with attributes and children. `onclick` and the like are listeners.
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes] null, undefined and false leave an attribute out
 * @param {...Child} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  setAttributes(element, attributes);
  element.append(...present(children));
  return element;
}

/**
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes]
 * @param {...Child} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAttributes(element, attributes);
  element.append(...present(children));
  return element;
}

/**
 * @param {Element} element
 * @param {Record<string, unknown>} attributes
 */
function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
}

/**
 * @param {Child[]} children
 * @returns {(Node | string)[]}
 */
function present(children) {
  return /** @type {(Node | string)[]} */ (children.filter((child) => child || child === ""));
}

/**
 * The content of a <template> of index.html.
 * @param {string} id
 * @returns {DocumentFragment}
 */
export function fromTemplate(id) {
  const template = /** @type {HTMLTemplateElement} */ (byId(id));
  return /** @type {DocumentFragment} */ (template.content.cloneNode(true));
}

/**
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/**
 * Text from a user. <bdi> keeps its direction from changing the text around it.
 * @param {string} text
 */
export function userText(text) {
  return el("bdi", {}, text);
}

/**
 * @param {string} label
 * @param {(event: Event) => unknown} onclick
 * @param {string} [kind] "primary", "danger" or "link"
 */
export function button(label, onclick, kind) {
  return el("button", { type: "button", class: kind, onclick }, label);
}

/** @param {string} text */
export function copyButton(text) {
  const element = button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(text);
      element.textContent = "Copied";
    } catch {
      element.textContent = "Press Ctrl+C";
      selectText(element.parentElement?.querySelector("code"));
    }
    setTimeout(() => element.replaceChildren("Copy"), 2000);
  });
  element.classList.add("copy");
  return element;
}

/** @param {Element | null | undefined} element */
function selectText(element) {
  if (element) {
    getSelection()?.selectAllChildren(element);
  }
}

/**
 * A short message at the bottom of the page.
 * @param {string} text
 */
export function notify(text) {
  const notice = el("p", {}, text);
  byId("notices").replaceChildren(notice);
  setTimeout(() => notice.remove(), 5000);
}
