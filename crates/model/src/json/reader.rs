//! Text into [`Json`], strictly by RFC 8259 and within our bounds: one pass, and whatever the grammar does not name
//! is refused. Invalid UTF-8, lone surrogates, comments, trailing commas and text after the value among it.

use super::{InvalidJson, Json, MAX_DEPTH, MAX_NUMBER_CHARACTERS, shortened};
use crate::canonical::text;

/// The most digits of an exponent: a number like `1e999` is small to write and large to work with.
const MAX_EXPONENT_DIGITS: usize = 2;
/// Up to as many members, comparing each pair of names is cheaper than sorting them.
const FEW_MEMBERS: usize = 16;

/// Reads the whole of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Json, InvalidJson> {
    let text = str::from_utf8(bytes).map_err(|error| InvalidJson::Syntax(error.to_string()))?;
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.white_space();
    if reader.peek().is_some() { reader.wrong("something follows the value") } else { Ok(value) }
}

/// A place in the text. It stands between characters, as only ASCII is stepped over by the byte.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next value, inside `depth` arrays and objects.
    fn value(&mut self, depth: u32) -> Result<Json, InvalidJson> {
        self.white_space();
        match self.peek() {
            Some(b'"') => self.string().map(Json::Text),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'-' | b'0'..=b'9') => self.number().map(|text| Json::Number(text.to_owned())),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            _ => self.wrong("a value is expected"),
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, InvalidJson> {
        if !self.rest().starts_with(word) {
            return self.wrong("a value is expected");
        }
        self.at += word.len();
        Ok(value)
    }

    fn array(&mut self, depth: u32) -> Result<Json, InvalidJson> {
        self.open(depth)?;
        let mut items = Vec::new();
        if self.closes(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.closes(b']') {
                return Ok(Json::Array(items));
            }
            self.expect(b',', "`,` or `]` is expected")?;
        }
    }

    fn object(&mut self, depth: u32) -> Result<Json, InvalidJson> {
        self.open(depth)?;
        let mut members = Vec::new();
        if self.closes(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.white_space();
            if self.peek() != Some(b'"') {
                return self.wrong("a member name is expected");
            }
            let name = self.string()?;
            if name.starts_with("$serde_json::") {
                return Err(InvalidJson::Reserved(shortened(&name)));
            }
            self.white_space();
            self.expect(b':', "`:` is expected")?;
            members.push((name, self.value(depth + 1)?));
            if self.closes(b'}') {
                break;
            }
            self.expect(b',', "`,` or `}` is expected")?;
        }
        match repeated(&members) {
            Some(name) => Err(InvalidJson::Repeated(shortened(name))),
            None => Ok(Json::Object(members)),
        }
    }

    /// Steps into an array or object.
    fn open(&mut self, depth: u32) -> Result<(), InvalidJson> {
        if depth >= MAX_DEPTH {
            return self.wrong("nested too deep");
        }
        self.at += 1;
        Ok(())
    }

    /// Steps over `bracket` where it is what comes next.
    fn closes(&mut self, bracket: u8) -> bool {
        self.white_space();
        let closes = self.peek() == Some(bracket);
        self.at += usize::from(closes);
        closes
    }

    /// A string, from its first quotation mark to behind its last.
    fn string(&mut self) -> Result<String, InvalidJson> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let rest = self.rest();
            let length = text::plain_length(rest.as_bytes());
            let plain = rest.get(..length).unwrap_or_default();
            self.at += length;
            // Most strings are plain to their end, and take as much room as they need.
            if string.is_empty() && self.peek() == Some(b'"') {
                self.at += 1;
                return Ok(plain.to_owned());
            }
            string.push_str(plain);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => {
                    self.at += 1;
                    string.push(self.escaped()?);
                }
                Some(_) => return self.wrong("a control character in a string"),
                None => return self.wrong("a string does not end"),
            }
        }
    }

    /// The character that is written after a backslash.
    fn escaped(&mut self) -> Result<char, InvalidJson> {
        let character = match self.peek() {
            Some(mark @ (b'"' | b'\\' | b'/')) => char::from(mark),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unit_or_pair(),
            _ => return self.wrong("no such escape"),
        };
        self.at += 1;
        Ok(character)
    }

    /// `\uXXXX`, or two of them that are a surrogate pair. One half alone is no character.
    fn unit_or_pair(&mut self) -> Result<char, InvalidJson> {
        let first = self.unit()?;
        let mut units = vec![first];
        if matches!(first, 0xD800..=0xDBFF) && self.rest().starts_with("\\u") {
            self.at += 1;
            units.push(self.unit()?);
        }
        match char::decode_utf16(units).next() {
            Some(Ok(character)) => Ok(character),
            _ => self.wrong("half a surrogate pair"),
        }
    }

    /// The four digits behind `u`.
    fn unit(&mut self) -> Result<u16, InvalidJson> {
        let digits = self.text.get(self.at + 1..self.at + 5);
        // The library would take a sign for a digit.
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) {
            Some(unit) => {
                self.at += 5;
                Ok(unit)
            }
            None => self.wrong("`\\u` has four hexadecimal digits"),
        }
    }

    fn number(&mut self) -> Result<&'a str, InvalidJson> {
        let start = self.at;
        self.skip(|byte| byte == b'-', 1);
        if self.skip(|byte| byte == b'0', 1) == 0 && self.digits() == 0 {
            return self.wrong("a number has no digits");
        }
        if self.skip(|byte| byte == b'.', 1) == 1 && self.digits() == 0 {
            return self.wrong("a number has no digits behind its point");
        }
        if self.skip(|byte| matches!(byte, b'e' | b'E'), 1) == 1 {
            self.skip(|byte| matches!(byte, b'+' | b'-'), 1);
            let zeros = self.skip(|byte| byte == b'0', usize::MAX);
            let digits = self.digits();
            if zeros + digits == 0 {
                return self.wrong("a number has no digits in its exponent");
            }
            if digits > MAX_EXPONENT_DIGITS {
                return self.wrong("a number's exponent is too large");
            }
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        if text.len() > MAX_NUMBER_CHARACTERS { Err(InvalidJson::NumberTooLong) } else { Ok(text) }
    }

    fn digits(&mut self) -> usize {
        self.skip(|byte| byte.is_ascii_digit(), usize::MAX)
    }

    fn white_space(&mut self) {
        // Most documents have none.
        if self.peek().is_some_and(|byte| byte > b' ') {
            return;
        }
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'), usize::MAX);
    }

    /// Steps over at most `most` ASCII characters of a kind; over how many.
    fn skip(&mut self, kind: impl Fn(u8) -> bool, most: usize) -> usize {
        let skipped = self.rest().bytes().take(most).take_while(|byte| kind(*byte)).count();
        self.at += skipped;
        skipped
    }

    fn expect(&mut self, byte: u8, otherwise: &'static str) -> Result<(), InvalidJson> {
        if self.peek() != Some(byte) {
            return self.wrong(otherwise);
        }
        self.at += 1;
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// What is wrong, and where: never the text itself, which may be anybody's.
    fn wrong<T>(&self, what: &'static str) -> Result<T, InvalidJson> {
        Err(InvalidJson::Syntax(format!("{what} at byte {}", self.at)))
    }
}

/// A name that two of the members have.
fn repeated(members: &[(String, Json)]) -> Option<&str> {
    if members.len() <= FEW_MEMBERS {
        let mut rest = members;
        while let [(name, _), others @ ..] = rest {
            if others.iter().any(|(other, _)| other == name) {
                return Some(name);
            }
            rest = others;
        }
        return None;
    }
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(*one),
        _ => None,
    })
}
