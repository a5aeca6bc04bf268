// Runs in the page's head. Gradio follows the system's colour scheme alone; where the user has chosen one, the
// choice answers in the system's place, so that the page is never drawn in the wrong colours first.
(() => {
  const chosen = localStorage.getItem('chimera-theme');
  if (!chosen) return;
  const ask = window.matchMedia.bind(window);
  window.matchMedia = (query) => {
    if (!query.includes('prefers-color-scheme')) return ask(query);
    const nothing = () => {};
    return {
      media: query, matches: query.includes(chosen), onchange: null,
      addEventListener: nothing, removeEventListener: nothing, addListener: nothing, removeListener: nothing,
    };
  };
})();
