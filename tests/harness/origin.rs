//! An ordinary HTTP/1.1 server that a test tells what to answer, and that remembers what it was asked.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::process::lock;
use super::{PATIENCE, eventually};

/// Listens on a port of its own, also for the time it is dead. One thread per connection.
pub struct ScriptedOrigin {
    shared: Arc<Shared>,
    /// Bound and never listening: nobody else gets the port while this origin is dead.
    _reserve: tokio::net::TcpSocket,
    running: Mutex<Option<Running>>,
}

struct Running {
    stopping: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

struct Shared {
    address: SocketAddr,
    scripts: Mutex<HashMap<String, Script>>,
    seen: Mutex<Vec<Seen>>,
    grown: Condvar,
    /// Connections, to be closed when it dies.
    open: Mutex<Vec<TcpStream>>,
}

type Script = Arc<dyn Fn(&Seen) -> Answer + Send + Sync>;

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    /// In their order, names as they were written.
    pub fields: Vec<(String, String)>,
    /// The bytes of the head.
    pub head: String,
    /// Empty until it has come.
    pub body: Vec<u8>,
}

impl Seen {
    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Value of the first field called `name`, in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let called = |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
        self.fields.iter().find(called).map(|(_, value)| value.as_str())
    }
}

/// Holds answers back until it is opened.
#[derive(Clone, Default)]
pub struct Gate {
    inner: Arc<(Mutex<bool>, Condvar)>,
}

impl Gate {
    pub fn closed() -> Gate {
        Gate::default()
    }

    pub fn open(&self) {
        *lock(&self.inner.0) = true;
        self.inner.1.notify_all();
    }

    /// Waits until it is open.
    pub fn wait(&self) {
        let open = self.inner.1.wait_timeout_while(lock(&self.inner.0), PATIENCE, |open| !*open);
        drop(open.unwrap_or_else(PoisonError::into_inner));
    }
}

/// What to answer. A 200 with an `ETag` is answered 304 to whoever has it.
#[derive(Clone)]
pub struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    steps: Vec<Step>,
    framing: Framing,
    before: Option<Gate>,
    /// Sent without waiting for the body of the request.
    early: bool,
}

#[derive(Clone)]
enum Step {
    Send(Arc<[u8]>),
    Wait(Gate),
    Cut,
    Reset,
}

#[derive(Clone, PartialEq, Eq)]
enum Framing {
    /// `Content-Length`, counted or as told.
    Length(Option<usize>),
    Chunked,
    UntilClose,
    /// The steps are all there is, head included.
    Raw,
}

impl Answer {
    pub fn status(status: u16, body: impl AsRef<[u8]>) -> Answer {
        let steps = vec![Step::Send(body.as_ref().into())];
        Answer { status, fields: Vec::new(), steps, framing: Framing::Length(None), before: None, early: false }
    }

    pub fn ok(body: impl AsRef<[u8]>) -> Answer {
        Answer::status(200, body)
    }

    /// These bytes, whatever they are; then it closes. Where they are a whole answer and more is asked afterwards, they
    /// shall say `Connection: close`: else the next request may meet a connection that is just being closed.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Answer {
        Answer { framing: Framing::Raw, ..Answer::ok(bytes) }
    }

    /// Closes without a word.
    pub fn hang_up() -> Answer {
        Answer::raw("")
    }

    pub fn field(mut self, name: &str, value: &str) -> Answer {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Does not answer before the gate is open.
    pub fn held_by(mut self, gate: &Gate) -> Answer {
        self.before = Some(gate.clone());
        self
    }

    /// Answers as soon as the head of the request is there, and closes without reading the rest.
    pub fn early(mut self) -> Answer {
        self.early = true;
        self
    }

    /// Sends the rest of the body once the gate is open.
    pub fn then_when(mut self, gate: &Gate, rest: impl AsRef<[u8]>) -> Answer {
        self.steps.extend([Step::Wait(gate.clone()), Step::Send(rest.as_ref().into())]);
        self
    }

    /// Closes the connection once the gate is open, though more of the body was promised.
    pub fn then_dies_when(mut self, gate: &Gate) -> Answer {
        self.steps.extend([Step::Wait(gate.clone()), Step::Cut]);
        if let Framing::Length(length) = &mut self.framing {
            *length = Some(1_000_000);
        }
        self
    }

    /// Says that the body has so many bytes, whatever is sent of it.
    pub fn promising(mut self, length: usize) -> Answer {
        self.framing = Framing::Length(Some(length));
        self
    }

    /// Closes the connection here.
    pub fn then_dies(mut self) -> Answer {
        self.steps.push(Step::Cut);
        self
    }

    /// Resets the connection here.
    pub fn then_resets(mut self) -> Answer {
        self.steps.push(Step::Reset);
        self
    }

    /// Each part of the body as a chunk of its own.
    pub fn chunked(mut self) -> Answer {
        self.framing = Framing::Chunked;
        self
    }

    /// The body ends with the connection.
    pub fn until_close(mut self) -> Answer {
        self.framing = Framing::UntilClose;
        self
    }
}

impl ScriptedOrigin {
    /// Starts on a port of its own. What no script was given for is answered 404.
    pub fn start() -> ScriptedOrigin {
        let reserve = tokio::net::TcpSocket::new_v4().expect("a socket");
        reserve.set_reuseaddr(true).expect("a socket option");
        reserve.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let shared = Shared {
            address: reserve.local_addr().expect("it is bound"),
            scripts: Mutex::default(),
            seen: Mutex::default(),
            grown: Condvar::new(),
            open: Mutex::default(),
        };
        let origin = ScriptedOrigin { shared: Arc::new(shared), _reserve: reserve, running: Mutex::default() };
        origin.come_back();
        origin
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// What is answered at `path` (whatever the query) from now on.
    pub fn answer(&self, path: &str, answer: Answer) {
        self.answer_by(path, move |_| answer.clone());
    }

    /// The same, depending on the request.
    pub fn answer_by(&self, path: &str, script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) {
        lock(&self.shared.scripts).insert(path.to_owned(), Arc::new(script));
    }

    /// The requests for `path` so far, in the order in which their heads came.
    pub fn requests(&self, path: &str) -> Vec<Seen> {
        lock(&self.shared.seen).iter().filter(|seen| seen.path() == path).cloned().collect()
    }

    pub fn count(&self, path: &str) -> usize {
        self.requests(path).len()
    }

    /// Waits until the head of the `count`th request for `path` is there.
    #[track_caller]
    pub fn wait_for_requests(&self, path: &str, count: usize) {
        let missing = |seen: &mut Vec<Seen>| seen.iter().filter(|seen| seen.path() == path).count() < count;
        let seen = self.shared.grown.wait_timeout_while(lock(&self.shared.seen), PATIENCE, missing);
        let (seen, waited) = seen.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "waited for {count} requests for {path}; what came: {seen:#?}");
    }

    /// Closes the port and every connection: who connects now is refused.
    pub fn die(&self) {
        let Some(running) = lock(&self.running).take() else { return };
        running.stopping.store(true, Ordering::SeqCst);
        // Wakes the one who accepts.
        let _ = TcpStream::connect(self.shared.address);
        let _ = running.accepting.join();
        // A process that another test is just starting may hold a copy of the listener until it runs.
        eventually("the port to be closed", || match TcpStream::connect(self.shared.address) {
            Err(_) => Ok(()),
            Ok(_) => Err("it still takes connections".to_owned()),
        });
        lock(&self.shared.open).drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    /// Listens on its port again.
    pub fn come_back(&self) {
        let listener = TcpListener::bind(self.shared.address).expect("the port is reserved for it");
        let (shared, stopping) = (Arc::clone(&self.shared), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&stopping);
        let accepting = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                lock(&shared.open).extend(stream.try_clone());
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        *lock(&self.running) = Some(Running { stopping, accepting });
    }
}

impl Drop for ScriptedOrigin {
    fn drop(&mut self) {
        self.die();
    }
}

impl Shared {
    /// Request after request, until one side closes.
    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let Ok(reading) = stream.try_clone() else { return };
        let mut reading = BufReader::new(reading);
        while let Some(head) = read_head(&mut reading) {
            let index = {
                let mut seen = lock(&self.seen);
                seen.push(head.clone());
                seen.len() - 1
            };
            self.grown.notify_all();
            let at_once = self.script(&head);
            if let Some(answer) = at_once.as_ref().filter(|answer| answer.early) {
                let _ = answer.write(&head, &mut stream);
                break;
            }
            let Some(body) = read_body(&head, &mut reading) else { break };
            let request = Seen { body, ..head };
            if let Some(seen) = lock(&self.seen).get_mut(index) {
                *seen = request.clone();
            }
            let answer = if request.body.is_empty() { at_once } else { self.script(&request) };
            let answer = answer.unwrap_or_else(|| Answer::status(404, "no such path\n"));
            match answer.write(&request, &mut stream) {
                Ok(true) => {}
                Ok(false) => break,
                // Whoever is to see a reset must not see an end before it.
                Err(_) => return self.forget(&stream),
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    /// Drops the other handle of a connection: it closes with the last one.
    fn forget(&self, stream: &TcpStream) {
        let peer = stream.peer_addr().ok();
        lock(&self.open).retain(|other| other.peer_addr().ok() != peer);
    }

    fn script(&self, request: &Seen) -> Option<Answer> {
        let script = lock(&self.scripts).get(request.path()).cloned();
        script.map(|script| script(request))
    }
}

fn read_head(reading: &mut impl BufRead) -> Option<Seen> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reading.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut lines = head.trim_end().split("\r\n");
    let mut words = lines.next()?.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let field = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    let fields = lines.filter_map(field).collect();
    Some(Seen { method, target, fields, head, body: Vec::new() })
}

fn read_body(head: &Seen, reading: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = head.field("content-length") {
        reading.take(length.parse().ok()?).read_to_end(&mut body).ok()?;
        return (body.len().to_string() == length).then_some(body);
    }
    while head.field("transfer-encoding").is_some() {
        let mut line = String::new();
        reading.read_line(&mut line).ok()?;
        let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        reading.read_exact(&mut chunk).ok()?;
        body.extend(chunk.iter().take(size));
        if size == 0 {
            break;
        }
    }
    Some(body)
}

impl Answer {
    /// Whether the connection can be kept.
    fn write(&self, request: &Seen, stream: &mut TcpStream) -> std::io::Result<bool> {
        if let Some(gate) = &self.before {
            gate.wait();
        }
        let tag = self.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("etag")).map(|(_, tag)| tag);
        let known = |tag: &String| request.field("if-none-match").is_some_and(|tags| tags.contains(tag.as_str()));
        let unchanged = self.status == 200 && tag.is_some_and(known);
        // What can go out goes out at once, head and all.
        let mut out = if self.framing == Framing::Raw { Vec::new() } else { self.head(unchanged).into_bytes() };
        let bodiless = unchanged || request.method == "HEAD" || matches!(self.status, 204 | 304);
        if bodiless && self.framing != Framing::Raw {
            return stream.write_all(&out).map(|()| true);
        }
        for step in &self.steps {
            match step {
                Step::Wait(gate) => {
                    stream.write_all(&std::mem::take(&mut out))?;
                    gate.wait();
                }
                Step::Cut => return stream.write_all(&out).map(|()| false),
                Step::Reset => {
                    stream.write_all(&out)?;
                    socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
                    return Err(ErrorKind::ConnectionReset.into());
                }
                Step::Send(part) if self.framing == Framing::Chunked => {
                    out.extend([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
                }
                Step::Send(part) => out.extend_from_slice(part),
            }
        }
        if self.framing == Framing::Chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        stream.write_all(&out)?;
        Ok(matches!(self.framing, Framing::Chunked | Framing::Length(_)))
    }

    fn head(&self, unchanged: bool) -> String {
        let status = if unchanged { 304 } else { self.status };
        let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        let counted = || self.steps.iter().map(|step| if let Step::Send(part) = step { part.len() } else { 0 }).sum();
        head += &match &self.framing {
            _ if matches!(status, 204 | 304) => String::new(),
            Framing::Length(length) => format!("Content-Length: {}\r\n", length.unwrap_or_else(counted)),
            Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
            Framing::UntilClose => "Connection: close\r\n".to_owned(),
            Framing::Raw => String::new(),
        };
        head + "\r\n"
    }
}
