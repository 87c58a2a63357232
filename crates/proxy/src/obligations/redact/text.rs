//! A JSON string byte by byte: whether it is one, in UTF-8, and what it says once its escapes are read, as far as that is
//! asked for.

/// What is read of a string.
pub(super) struct Text {
    /// The longest that anybody asks for.
    longest: usize,
    /// What it says so far. At most one character longer than that.
    said: Vec<u8>,
    is_read: bool,
    state: State,
    /// The first half of a character that takes two escapes.
    high: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Plain,
    /// In a character of several bytes: how many follow, and what the next may be.
    Bytes {
        left: u8,
        least: u8,
        most: u8,
    },
    Escape,
    /// In `\u`: how many digits follow, and what those before come to.
    Digits {
        left: u8,
        unit: u16,
    },
}

/// What a byte comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    On,
    /// It ended the string.
    End,
    Wrong,
}

impl Text {
    pub(super) fn new(longest: usize) -> Self {
        Self { longest, said: Vec::with_capacity(longest + 4), is_read: false, state: State::Plain, high: None }
    }

    /// After the quote. Only where it `is_read` is it kept what it says.
    pub(super) fn begin(&mut self, is_read: bool) {
        self.said.clear();
        (self.is_read, self.state, self.high) = (is_read, State::Plain, None);
    }

    /// What it says; `None` where that is longer than anybody asks for.
    pub(super) fn read(&self) -> Option<&[u8]> {
        (self.is_read && self.said.len() <= self.longest).then_some(self.said.as_slice())
    }

    pub(super) fn take(&mut self, byte: u8) -> Read {
        match self.state {
            State::Plain => return self.plain(byte),
            State::Bytes { left, least, most } => {
                if !(least..=most).contains(&byte) {
                    return Read::Wrong;
                }
                self.say(&[byte]);
                self.state =
                    if left > 1 { State::Bytes { left: left - 1, least: 0x80, most: 0xBF } } else { State::Plain };
            }
            State::Escape if byte == b'u' => self.state = State::Digits { left: 4, unit: 0 },
            State::Escape => {
                let Some(said) = escaped(byte) else { return Read::Wrong };
                self.lone();
                self.say(&[said]);
                self.state = State::Plain;
            }
            State::Digits { left, unit } => {
                let Some(digit) = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()) else {
                    return Read::Wrong;
                };
                let unit = unit << 4 | digit;
                if left > 1 {
                    self.state = State::Digits { left: left - 1, unit };
                } else {
                    self.state = State::Plain;
                    self.unit(unit);
                }
            }
        }
        Read::On
    }

    fn plain(&mut self, byte: u8) -> Read {
        if byte == b'\\' {
            // Whether it is the second half shows at its end.
            self.state = State::Escape;
            return Read::On;
        }
        self.lone();
        let (left, least, most) = match byte {
            b'"' => return Read::End,
            0x20..=0x7F => {
                self.say(&[byte]);
                return Read::On;
            }
            0xC2..=0xDF => (1, 0x80, 0xBF),
            // No longer form than needed, no half of a character, and nothing past the last (RFC 3629 §4).
            0xE0 => (2, 0xA0, 0xBF),
            0xE1..=0xEC | 0xEE..=0xEF => (2, 0x80, 0xBF),
            0xED => (2, 0x80, 0x9F),
            0xF0 => (3, 0x90, 0xBF),
            0xF1..=0xF3 => (3, 0x80, 0xBF),
            0xF4 => (3, 0x80, 0x8F),
            _ => return Read::Wrong,
        };
        self.say(&[byte]);
        self.state = State::Bytes { left, least, most };
        Read::On
    }

    /// A unit of UTF-16 that was escaped.
    fn unit(&mut self, unit: u16) {
        match (self.high.take(), unit) {
            (Some(high), 0xDC00..=0xDFFF) => {
                let both = char::decode_utf16([high, unit]).next().and_then(Result::ok);
                self.character(both.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            (high, unit) => {
                self.high = high;
                self.lone();
                match char::from_u32(u32::from(unit)) {
                    Some(character) => self.character(character),
                    None if unit < 0xDC00 => self.high = Some(unit),
                    None => self.character(char::REPLACEMENT_CHARACTER),
                }
            }
        }
    }

    /// A first half that no second one follows stands for what most readers make of it.
    fn lone(&mut self) {
        if self.high.take().is_some() {
            self.character(char::REPLACEMENT_CHARACTER);
        }
    }

    fn character(&mut self, character: char) {
        let mut bytes = [0; 4];
        let bytes = character.encode_utf8(&mut bytes).as_bytes();
        self.say(bytes);
    }

    fn say(&mut self, bytes: &[u8]) {
        if self.is_read && self.said.len() <= self.longest {
            self.said.extend_from_slice(bytes);
        }
    }
}

const fn escaped(byte: u8) -> Option<u8> {
    Some(match byte {
        b'"' | b'\\' | b'/' => byte,
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}
