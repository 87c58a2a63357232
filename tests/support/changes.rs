//! An authority that only says what was withdrawn, over real HTTP, and can be made to fail in each way a network and a
//! database can: for tests of those who follow. The real one is in `support::authority`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// A running one.
#[derive(Clone)]
pub(crate) struct Changes {
    shared: Arc<(Mutex<State>, Condvar)>,
    port: u16,
}

struct State {
    generation: String,
    began: String,
    head: u64,
    changes: Vec<Value>,
    page: usize,
    behaviour: Behaviour,
    connections: Vec<TcpStream>,
    questions: Vec<Question>,
    answered: Vec<Instant>,
}

/// How it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// As it should.
    Well,
    /// Not at all: connections are closed as they come.
    Gone,
    /// Not at all: connections are taken and nothing is said.
    Silent,
    /// With this, whatever was asked.
    With(u16, String),
}

/// A question as it came.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// The position that was asked from.
    pub(crate) after: u64,
    /// The credential, without `Bearer`.
    pub(crate) credential: String,
}

impl Changes {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            generation: "first".to_owned(),
            began: "2020-01-01T00:00:00Z".to_owned(),
            head: 1,
            changes: Vec::new(),
            page: 1000,
            behaviour: Behaviour::Well,
            connections: Vec::new(),
            questions: Vec::new(),
            answered: Vec::new(),
        };
        let changes = Self { shared: Arc::new((Mutex::new(state), Condvar::new())), port };
        let serving = changes.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serving = serving.clone();
                thread::spawn(move || serving.serve(stream));
            }
        });
        changes
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    /// Withdraws `target` (as JSON), for `cause`; its position.
    pub(crate) fn withdraw(&self, target: &Value, cause: &str) -> u64 {
        let mut state = self.state();
        state.head += 1;
        let position = state.head;
        let withdrawal = json!({
            "id": format!("w-{}-{position}", state.generation), "target": target, "position": position,
            "at": "2026-01-01T00:00:00Z", "by": "user:ops", "reason": "test", "cause": cause,
            "until": "2200-01-01T00:00:00Z",
        });
        state.changes.push(json!({"position": position, "withdrawal": withdrawal}));
        self.shared.1.notify_all();
        position
    }

    /// The last position.
    pub(crate) fn head(&self) -> u64 {
        self.state().head
    }

    /// Answers so from now on; connections that are open are closed.
    pub(crate) fn behave(&self, behaviour: Behaviour) {
        let mut state = self.state();
        state.behaviour = behaviour;
        for connection in state.connections.drain(..) {
            connection.shutdown(Shutdown::Both).ok();
        }
        self.shared.1.notify_all();
    }

    /// Forgets everything after `position`, as a restored backup does. A lie, unless `generation` is another.
    pub(crate) fn restore(&self, position: u64, generation: &str) {
        let mut state = self.state();
        state.changes.retain(|change| change["position"].as_u64().unwrap() <= position);
        (state.head, state.generation) = (position, generation.to_owned());
        self.shared.1.notify_all();
    }

    /// At most so many changes fit one answer.
    pub(crate) fn page(&self, page: usize) {
        self.state().page = page;
    }

    /// The questions so far.
    pub(crate) fn questions(&self) -> Vec<Question> {
        self.state().questions.clone()
    }

    /// When the last answer left.
    pub(crate) fn last_answer(&self) -> Option<Instant> {
        self.state().answered.last().copied()
    }

    fn serve(&self, stream: TcpStream) {
        self.state().connections.push(stream.try_clone().unwrap());
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some((target, credential)) = head(&mut reader) {
            let query = target.strip_prefix("/v1/changes?").unwrap_or_default();
            let member = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            let after = member("after").and_then(|text| text.parse().ok()).unwrap_or_default();
            let wait = member("wait").and_then(|text| text.parse().ok()).unwrap_or_default();
            let Some((status, body)) = self.answer(after, wait, credential) else { return };
            let head = format!(
                "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            if writer.write_all(format!("{head}{body}").as_bytes()).is_err() {
                return;
            }
            self.state().answered.push(Instant::now());
        }
    }

    /// Waits as it was asked to; nothing where it is gone.
    fn answer(&self, after: u64, wait: f64, credential: String) -> Option<(u16, String)> {
        let until = Instant::now() + Duration::from_secs_f64(wait);
        let mut state = self.state();
        state.questions.push(Question { after, credential });
        loop {
            match &state.behaviour {
                Behaviour::Gone => return None,
                Behaviour::With(status, body) => return Some((*status, body.clone())),
                Behaviour::Silent => state = self.shared.1.wait(state).unwrap(),
                Behaviour::Well => {
                    let left = until.saturating_duration_since(Instant::now());
                    if state.head != after || left.is_zero() {
                        return Some((200, state.after(after)));
                    }
                    state = self.shared.1.wait_timeout(state, left).unwrap().0;
                }
            }
        }
    }
}

impl State {
    fn after(&self, after: u64) -> String {
        let mut changes: Vec<&Value> =
            self.changes.iter().filter(|change| change["position"].as_u64().unwrap() > after).collect();
        let more = changes.len() > self.page;
        changes.truncate(self.page);
        let answer = json!({
            "generation": self.generation, "began": self.began, "head": self.head, "changes": changes, "more": more,
        });
        answer.to_string()
    }
}

/// The target and the credential of a request without a body.
fn head(reader: &mut impl BufRead) -> Option<(String, String)> {
    let mut line = String::new();
    reader.take(8192).read_line(&mut line).ok().filter(|read| *read > 0)?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut credential = String::new();
    loop {
        line.clear();
        reader.take(8192).read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                credential = value.strip_prefix("Bearer ").unwrap_or_default().to_owned();
            }
            Some(_) => {}
            None => return Some((target, credential)),
        }
    }
}
