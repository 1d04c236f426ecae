// Remembers in this browser the name under which the visitor's work is kept, and reports the last one to a new page.

const NAME = "palimpsest-session";
let reported = false;

export default function ({ data, setStateValue }) {
  try {
    const last = localStorage.getItem(NAME);
    if (data.name && data.name !== last) localStorage.setItem(NAME, data.name);
    if (!data.name && last && !reported) setStateValue("last", last);
    reported = true;
  } catch {
    // a browser that keeps nothing: the address still names the work
  }
}
