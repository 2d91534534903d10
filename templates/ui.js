"use strict";
// What is put in by htmx comes alive as the page did, and nobody loses what he is writing.

document.body.addEventListener("htmx:load", (event) => {
  if (event.detail.elt !== document.body) enliven(event.detail.elt);
});

document.body.addEventListener("htmx:beforeRequest", (event) => {
  const read = event.detail.requestConfig.verb === "get";
  const main = document.getElementById("content");
  const busy = main.contains(document.activeElement) && document.activeElement.matches("input, select, textarea");
  if (read && (busy || main.querySelector("input[type=checkbox][name]:checked"))) event.preventDefault();
});

const away = (gone) => { document.getElementById("away").hidden = !gone; };
document.body.addEventListener("htmx:sendError", () => away(true));
document.body.addEventListener("htmx:afterRequest", (event) => { if (event.detail.xhr.status) away(event.detail.xhr.status === 401); });
