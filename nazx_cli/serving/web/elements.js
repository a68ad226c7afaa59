// The one way in which this page makes elements: whatever is put into them is text.

export const byId = (id) => document.getElementById(id);

// make("li", { class: "x", onclick: f }, "text", element, ...): a function is a listener, a value of
// false or null is left out, true is an attribute without a value.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Other items in a list; who stands on the third with the keyboard stays on the third.
export function redraw(list, items) {
  const all = () => [...list.querySelectorAll("a, button")];
  const at = all().indexOf(document.activeElement);
  list.replaceChildren(...items);
  if (at >= 0) all()[at]?.focus();
}

export const counted = (count, what) =>
  `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

// "lines 12-14" of a text, "page 3" of what has pages.
export function placeOf(source) {
  if (!/^\d/.test(source.place)) return source.place;
  return `${source.place.includes("-") ? "lines" : "line"} ${source.place}`;
}
