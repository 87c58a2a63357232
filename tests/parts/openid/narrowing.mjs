// Asking for more than the subject token has gives what it has; this is a provider of its own, so the rules are written
// here once more and not shared with Countersign.

function words(scope) {
  return (scope ?? '').split(' ').filter(Boolean);
}

export function narrowScope(held, asked) {
  const may = words(held);
  return (asked === undefined ? may : words(asked).filter((word) => may.includes(word))).join(' ');
}

const same = (left, right) => JSON.stringify(left) === JSON.stringify(right);

function narrowList(held, asked) {
  if (held === undefined) return asked;
  return asked === undefined ? held : asked.filter((value) => held.includes(value));
}

// Of two limits the smaller `max` counts when they are alike in everything else; otherwise the one already held stays.
function narrowLimit(held, asked) {
  if (asked === undefined) return held;
  const alike = same({ ...held, max: null }, { ...asked, max: null });
  return alike && Number(asked.max) < Number(held.max) ? asked : held;
}

function narrowLimits(held, asked) {
  if (held === undefined) return asked;
  const narrowed = { ...asked };
  for (const [name, limit] of Object.entries(held)) narrowed[name] = narrowLimit(limit, asked?.[name]);
  return narrowed;
}

function narrowElement(held, asked) {
  if (held.type !== asked.type) return undefined;
  if (held.identifier !== undefined && asked.identifier !== undefined && held.identifier !== asked.identifier) return undefined;
  const actions = narrowList(held.actions, asked.actions);
  const locations = narrowList(held.locations, asked.locations);
  if (actions?.length === 0 || locations?.length === 0) return undefined;
  const element = {
    ...asked, ...held, actions, locations,
    identifier: held.identifier ?? asked.identifier,
    limits: narrowLimits(held.limits, asked.limits),
    where: held.where === undefined ? asked.where : { ...asked.where, ...held.where },
  };
  return Object.fromEntries(Object.entries(element).filter(([, value]) => value !== undefined));
}

// Each asked element lies within the first one held that has room for it; one that finds none is dropped. A subject that
// holds no elements (a user's own token) is bounded by its scope alone.
export function narrowDetails(held, asked, scope) {
  if (asked === undefined) return held;
  if (held !== undefined) {
    return asked.flatMap((element) => {
      const within = held.map((parent) => narrowElement(parent, element)).find((narrowed) => narrowed !== undefined);
      return within === undefined ? [] : [within];
    });
  }
  const may = words(scope);
  return asked
    .map((element) => ({ ...element, actions: element.actions?.filter((action) => may.includes(action)) ?? may }))
    .filter((element) => element.actions.length > 0);
}
