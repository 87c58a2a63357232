//! A second reader of JSON, written from RFC 8259 and sharing nothing with the product's: strict, and it refuses what
//! two readers could read in two ways.

use std::str::Chars;

/// A value. Numbers are as they were written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Json {
    /// The whole of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let mut reader = Reader { rest: text.chars() };
        let value = reader.value(0)?;
        reader.blank();
        if reader.rest.as_str().is_empty() { Ok(value) } else { Err("something follows".to_owned()) }
    }

    /// The value at names from the outermost object inwards.
    pub(super) fn at(&self, names: &[&str]) -> Option<&Self> {
        let Some((first, rest)) = names.split_first() else { return Some(self) };
        match self {
            Self::Object(members) => members.iter().find(|(name, _)| name == first)?.1.at(rest),
            _ => None,
        }
    }
}

struct Reader<'a> {
    rest: Chars<'a>,
}

impl Reader<'_> {
    fn blank(&mut self) {
        while self.peek().is_some_and(|c| matches!(c, ' ' | '\t' | '\r' | '\n')) {
            self.rest.next();
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        for wanted in text.chars() {
            if self.rest.next() != Some(wanted) {
                return Err(format!("no `{text}`"));
            }
        }
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<Json, String> {
        self.blank();
        match self.peek().ok_or("nothing")? {
            _ if depth > 64 => Err("too deep".to_owned()),
            '{' => self.object(depth),
            '[' => self.list(depth),
            '"' => self.text().map(Json::Text),
            't' => self.expect("true").map(|()| Json::Bool(true)),
            'f' => self.expect("false").map(|()| Json::Bool(false)),
            'n' => self.expect("null").map(|()| Json::Null),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, String> {
        let mut members: Vec<(String, Json)> = Vec::new();
        self.expect("{")?;
        self.blank();
        while self.peek() != Some('}') {
            self.blank();
            let name = self.text()?;
            if members.iter().any(|(other, _)| *other == name) {
                return Err(format!("`{name}` twice"));
            }
            self.blank();
            self.expect(":")?;
            members.push((name, self.value(depth + 1)?));
            if !self.goes_on('}')? {
                break;
            }
        }
        self.expect("}").map(|()| Json::Object(members))
    }

    fn list(&mut self, depth: usize) -> Result<Json, String> {
        let mut items = Vec::new();
        self.expect("[")?;
        self.blank();
        while self.peek() != Some(']') {
            items.push(self.value(depth + 1)?);
            if !self.goes_on(']')? {
                break;
            }
        }
        self.expect("]").map(|()| Json::List(items))
    }

    /// Whether a comma, and with it another item, follows; `end` otherwise.
    fn goes_on(&mut self, end: char) -> Result<bool, String> {
        self.blank();
        match self.peek() {
            Some(',') => {
                self.rest.next();
                self.blank();
                if self.peek() == Some(end) { Err("a comma too many".to_owned()) } else { Ok(true) }
            }
            Some(c) if c == end => Ok(false),
            other => Err(format!("{other:?} instead of a comma")),
        }
    }

    fn text(&mut self) -> Result<String, String> {
        self.expect("\"")?;
        let mut text = String::new();
        loop {
            match self.rest.next().ok_or("a text without an end")? {
                '"' => return Ok(text),
                '\\' => text.push(self.escaped()?),
                c if c < ' ' => return Err("a control character in a text".to_owned()),
                c => text.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, String> {
        Ok(match self.rest.next().ok_or("an escape without an end")? {
            c @ ('"' | '\\' | '/') => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.unit()?;
                if !(0xD800..0xE000).contains(&first) {
                    return char::from_u32(first).ok_or_else(|| "no character".to_owned());
                }
                self.expect("\\u")?;
                let second = self.unit()?;
                if first >= 0xDC00 || !(0xDC00..0xE000).contains(&second) {
                    return Err("half a surrogate pair".to_owned());
                }
                char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)).ok_or("no character")?
            }
            other => return Err(format!("an escape `{other}`")),
        })
    }

    fn unit(&mut self) -> Result<u32, String> {
        let mut unit = 0;
        for _ in 0..4 {
            unit = unit * 16 + self.rest.next().and_then(|c| c.to_digit(16)).ok_or("no four hexadecimal digits")?;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<Json, String> {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_digit() || "+-.eE".contains(*c)) {
            text.push(c);
            self.rest.next();
        }
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let unsigned = text.strip_prefix('-').unwrap_or(&text);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).map_or((unsigned, None), |(m, e)| (m, Some(e)));
        let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
        let good = digits(whole)
            && (whole == "0" || !whole.starts_with('0'))
            && fraction.is_none_or(digits)
            && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)));
        if good { Ok(Json::Number(text)) } else { Err(format!("a number `{text}`")) }
    }
}
