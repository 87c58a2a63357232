//! HTTP/1.1 as RFC 9112 writes it and not one byte otherwise: what a tool may rely on receiving.

/// A request that reached the tool.
#[derive(Debug, Clone)]
pub(super) struct Received {
    /// `GET`
    pub(super) method: String,
    /// The request target.
    pub(super) target: String,
    /// The fields in their order, as they were written.
    pub(super) fields: Vec<(String, String)>,
    /// The body without its framing.
    pub(super) body: Vec<u8>,
    /// Why it is no whole and well-formed request.
    pub(super) fault: Option<String>,
    raw: Vec<u8>,
}

impl Received {
    /// What arrived and was no request.
    pub(super) fn faulty(raw: &[u8], fault: &str) -> Self {
        let head = head(raw).ok().flatten();
        let (method, target, fields, _) = head.unwrap_or_default();
        Self { method, target, fields, body: Vec::new(), fault: Some(fault.to_owned()), raw: raw.to_vec() }
    }

    /// The case that it says it is of.
    pub(super) fn case(&self) -> Option<usize> {
        let [value] = self.values("x-case")[..] else { return None };
        value.parse().ok()
    }

    /// The values of a field, by its exact name in lower case.
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// Whether it is a whole and well-formed request.
    pub(super) fn is_whole(&self) -> bool {
        self.fault.is_none()
    }

    /// It, for a person.
    pub(super) fn shown(&self) -> String {
        format!("{} {:?}", String::from_utf8_lossy(&self.raw), self.fault)
    }
}

type Head = (String, String, Vec<(String, String)>, usize);

/// The first request in `bytes` and how long it is; `None` while it is not whole.
pub(super) fn request(bytes: &[u8]) -> Result<Option<(Received, usize)>, String> {
    let Some((method, target, fields, start)) = head(bytes)? else { return Ok(None) };
    let rest = &bytes[start..];
    let values = |name: &str| {
        let named = fields.iter().filter(|(field, _)| field == name);
        named.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    let framed = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Some((Vec::new(), 0)),
        ([length], []) => {
            let length = number(length, 10).ok_or_else(|| format!("a length of `{length}`"))?;
            rest.get(..length).map(|body| (body.to_vec(), length))
        }
        ([], ["chunked"]) => chunks(rest)?,
        other => return Err(format!("more than one framing: {other:?}")),
    };
    Ok(framed.map(|(body, length)| {
        let end = start + length;
        (Received { method, target, fields, body, fault: None, raw: bytes[..end].to_vec() }, end)
    }))
}

/// Method, target and fields, and where the body begins.
fn head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head beyond UTF-8".to_owned())?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let parts: Vec<&str> = first.split(' ').collect();
    let &[method, target, "HTTP/1.1"] = &parts[..] else { return Err(format!("a first line of `{first}`")) };
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    if !token(method) || !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("a first line of `{first}`"));
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("a line of `{line}`"))?;
        let value = value.trim_matches([' ', '\t']);
        if !token(name) || value.chars().any(|c| c != '\t' && c.is_control()) {
            return Err(format!("a line of {line:?}"));
        }
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    Ok(Some((method.to_owned(), target.to_owned(), fields, end + 4)))
}

/// A chunked body without extensions or trailers, and how long it is on the wire.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let written = String::from_utf8_lossy(&rest[..end]).into_owned();
        let size = number(&written, 16).ok_or_else(|| format!("a chunk size of {written:?}"))?;
        let Some(chunk) = rest.get(end + 2..end + 2 + size + 2) else { return Ok(None) };
        let (data, ending) = chunk.split_at(size);
        if ending != b"\r\n" {
            return Err(format!("a chunk, or a trailer, that goes on with {:?}", String::from_utf8_lossy(ending)));
        }
        at += end + 2 + size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
        body.extend_from_slice(data);
    }
}

fn number(text: &str, radix: u32) -> Option<usize> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    if digits { usize::from_str_radix(text, radix).ok() } else { None }
}
