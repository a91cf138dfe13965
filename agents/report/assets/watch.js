/** The frame of a report that is watched: shows a new page when there is one, at the same place. */

"use strict";
(() => {
  const FRAMES_TO_SETTLE = 30;
  const DRAWN_WITHIN = 20000;
  const every = 1000 * Number(document.documentElement.dataset.every);
  const state = document.querySelector("#state span");
  const pages = document.body.appendChild(document.createElement("div"));
  pages.className = "pages";
  let shown = null;
  let version = 0;

  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  const nextFrame = () => new Promise((done) => setTimeout(done, 16));

  function setText(text) {
    if (state.textContent !== text) state.textContent = text;
  }

  /** What is read: a figure at the top of the window, and how far it is from there. */
  function placeIn(content) {
    const figures = [...content.document.querySelectorAll("figure")];
    const index = figures.findIndex((figure) => figure.getBoundingClientRect().bottom > 0);
    if (index < 0 || !content.scrollY) return null;
    const title = titleOf(figures[index]);
    const before = figures.slice(0, index).filter((figure) => titleOf(figure) === title).length;
    return { title, before, top: figures[index].getBoundingClientRect().top };
  }

  function titleOf(figure) {
    return figure.querySelector("h3")?.textContent ?? "";
  }

  /** Scrolls to the same figure; again while figures above it are drawn and take their heights. */
  async function goTo(content, place, fallback) {
    for (let i = 0; i < FRAMES_TO_SETTLE; i++) {
      const alike = [...content.document.querySelectorAll("figure")].filter((figure) => titleOf(figure) === place?.title);
      const figure = alike[place?.before ?? 0] ?? alike[0];
      const top = figure ? content.scrollY + figure.getBoundingClientRect().top - place.top : fallback;
      content.scrollTo({ top, behavior: "instant" });
      await nextFrame();
    }
  }

  /** Chooses the same theme, sample and place of the slider as before. */
  function carryOver(from, to) {
    if (from.documentElement.dataset.theme !== to.documentElement.dataset.theme) to.querySelector(".theme")?.click();
    for (const [query, event] of [[".bar-samples select", "change"], ["input[type=range]", "input"]]) {
      const [old, fresh] = [from.querySelector(query), to.querySelector(query)];
      const isSame = old && fresh && old.max === fresh.max && old.options?.length === fresh.options?.length;
      if (!isSame || old.value === fresh.value) continue;
      fresh.value = old.value;
      fresh.dispatchEvent(new Event(event, { bubbles: true }));
    }
  }

  /** Loads a page behind the one that is shown, and then shows it instead. */
  async function show(next) {
    const fresh = document.createElement("iframe");
    fresh.title = "Report";
    fresh.className = "is-coming";
    fresh.src = `/report?${next}`;
    const isLoaded = new Promise((done) => fresh.addEventListener("load", done, { once: true }));
    pages.append(fresh);
    await isLoaded;
    const to = fresh.contentWindow;
    for (let waited = 0; waited < DRAWN_WITHIN && to.document.documentElement.dataset.state !== "ready"; waited += 50) {
      await pause(50);
    }
    if (shown) {
      const from = shown.contentWindow;
      carryOver(from.document, to.document);
      const place = placeIn(from);
      if (from.scrollY) await goTo(to, place, from.scrollY);
    }
    const hadFocus = document.activeElement === shown;
    fresh.className = "";
    shown?.remove();
    shown = fresh;
    if (hadFocus) fresh.focus();
    version = next;
    document.documentElement.dataset.version = String(next);
  }

  async function look() {
    try {
      const found = await (await fetch("/state")).json();
      setText(found.version ? found.text : "The page is being made.");
      if (found.version !== version) await show(found.version);
    } catch {
      setText("No answer: ctm-rl watch has ended; this page is the last one.");
    }
    setTimeout(look, version ? every : Math.min(every, 500));
  }

  look();
})();
