//! What is refused by looking at the text alone, because the engine's parser or what comes after it would hang on
//! it or overflow the stack: deep brackets and long lines of operators.

use crate::Problem;

/// The deepest nesting of `[` and `{`. The engine's parser takes twice as long with each one more.
const MAX_BRACKETS: usize = 12;
/// The deepest nesting of `(`.
const MAX_PARENTHESES: usize = 24;
/// The most operators in one expression. Each is one level more in the engine's tree, which it walks recursively.
const MAX_OPERATORS: usize = 100;

/// The first place in `text` where there is too much of something; comments and strings aside.
pub(super) fn too_much(file: &str, text: &str) -> Option<Problem> {
    let mut scan =
        Scan { within: None, escaped: false, last: ' ', brackets: 0, open: vec![Open { round: false, operators: 0 }] };
    let (mut line, mut column) = (1_u32, 0_u32);
    for c in text.chars() {
        column += 1;
        if let Some(message) = scan.step(c) {
            let hint = Some("give a part of it a name of its own".to_owned());
            return Some(Problem { hint, ..Problem::at(file, line, column, super::NESTING, message) });
        }
        if c == '\n' {
            (line, column) = (line + 1, 0);
        }
    }
    None
}

struct Scan {
    /// What ends the string or comment that the scan is in.
    within: Option<char>,
    escaped: bool,
    /// The last character that was neither white space, string nor comment; a line break where a line ended since
    /// without an operator.
    last: char,
    /// How many of the open brackets are `[` or `{`.
    brackets: usize,
    /// The brackets that are open, and the text around all of them.
    open: Vec<Open>,
}

struct Open {
    round: bool,
    /// The operators so far of the expression that is being read in it.
    operators: usize,
}

impl Scan {
    fn step(&mut self, c: char) -> Option<String> {
        if let Some(end) = self.within {
            let ends = c == end && !self.escaped;
            self.escaped = end == '"' && c == '\\' && !self.escaped;
            if ends {
                self.within = None;
            }
            if end != '\n' || !ends {
                return None;
            }
        }
        match c {
            '"' | '`' => self.within = Some(c),
            '#' => {
                self.within = Some('\n');
                return None;
            }
            '[' | '{' | '(' => return self.opened(c),
            ']' | '}' | ')' => self.closed(),
            _ => {}
        }
        if c == '\n' && !is_operator(self.last) {
            self.last = c;
        } else if !c.is_whitespace() {
            let problem = self.counted(c);
            self.last = c;
            return problem;
        }
        None
    }

    fn opened(&mut self, c: char) -> Option<String> {
        let round = c == '(';
        self.open.push(Open { round, operators: 0 });
        self.brackets += usize::from(!round);
        self.last = c;
        if self.brackets > MAX_BRACKETS {
            return Some(format!("brackets nested more than {MAX_BRACKETS} deep"));
        }
        let too_many = round && self.open.len() - 1 - self.brackets > MAX_PARENTHESES;
        too_many.then(|| format!("parentheses nested more than {MAX_PARENTHESES} deep"))
    }

    fn closed(&mut self) {
        if self.open.len() > 1
            && let Some(closed) = self.open.pop()
        {
            self.brackets -= usize::from(!closed.round);
        }
    }

    fn counted(&mut self, c: char) -> Option<String> {
        let new_line = self.last == '\n';
        let open = self.open.last_mut()?;
        if is_operator(c) {
            open.operators += usize::from(!is_operator(self.last));
        } else if matches!(c, ',' | ';') || new_line {
            open.operators = 0;
        }
        (open.operators > MAX_OPERATORS).then(|| format!("more than {MAX_OPERATORS} operators in one expression"))
    }
}

const fn is_operator(c: char) -> bool {
    matches!(c, '+' | '-' | '*' | '/' | '%' | '|' | '&' | '<' | '>' | '=' | '!' | ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Option<(u32, u32)> {
        too_much("a.rego", text).map(|found| (found.line, found.column))
    }

    #[test]
    fn deep_brackets_and_long_sums_are_found_where_they_are() {
        assert_eq!(place(&"[".repeat(13)), Some((1, 13)));
        assert_eq!(place(&format!("x\n  {}", "{1: [".repeat(7))), Some((2, 33)));
        assert_eq!(place(&"(".repeat(25)), Some((1, 25)));
        assert!(place(&format!("a := 1{}", " +\n1".repeat(200))).is_some());
        assert!(place(&format!("a := 1{}", "\n+ f(1, 2)".repeat(200))).is_some());
        assert!(place(&format!("a := 1{}", " + # words\n[1, 2]".repeat(200))).is_some());
    }

    #[test]
    fn ordinary_text_however_long_is_let_through() {
        let rules = "a := 1 + 2\nb if {\n\tx == y; y != z\n\tc <= [1, {\"k\": 2}][0] # +\n}\n".repeat(300);
        assert_eq!(place(&rules), None);
        let quoted = format!("a := \"{0}\\\"{0}\" # {0}\nb := `{0}`\n", "[+".repeat(200));
        assert_eq!(place(&quoted.repeat(3)), None);
        assert_eq!(place(&format!("a := [{}]", "1 + 2, ".repeat(500))), None);
    }
}
