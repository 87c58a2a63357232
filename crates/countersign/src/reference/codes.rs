//! The page of denial codes, from the one table of them.

use std::fmt::Write;

use model::{Code, Retry};

pub(super) fn document() -> String {
    let mut text = format!(
        "{}# Denial codes\n\nA call that is not forwarded is answered with `application/problem+json` (RFC 9457): `type` \
         is `urn:countersign:denial:` and\nthe code, `decision_id` leads to the record (`countersign explain ID`), and \
         `retry` says whether trying again makes sense.\nCodes are stable. Codes more telling than `invalid_token` are \
         given only after the token's signature was verified.\n\n\
         | code | status | title | what it means | retry |\n|---|---|---|---|---|\n",
        super::GENERATED
    );
    for code in Code::ALL {
        let entry = code.entry();
        let row = format!(
            "| `{}` | {} | {} | {} | {} |\n",
            code.as_str(),
            entry.status,
            entry.title,
            entry.meaning,
            retry(entry.retry)
        );
        text.push_str(&row);
    }
    text.push_str("\n## Retry\n\n| word | meaning |\n|---|---|\n");
    for (word, meaning) in [
        (Retry::Never, "The same call will be refused again."),
        (Retry::After, "Later: the condition passes by itself."),
        (Retry::AfterChange, "Once something changed: the call, the token, the grant or the policy."),
        (Retry::AfterApproval, "Once a person approved it."),
    ] {
        // Writing to a string does not fail.
        writeln!(text, "| {} | {meaning} |", retry(word)).ok();
    }
    text
}

const fn retry(retry: Retry) -> &'static str {
    match retry {
        Retry::Never => "`never`",
        Retry::After => "`after`",
        Retry::AfterChange => "`after_change`",
        Retry::AfterApproval => "`after_approval`",
    }
}
