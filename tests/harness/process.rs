//! The program as a child process: started with arguments in a folder of its own, known by its `ready` lines, ended by
//! the id it was started with.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, eventually};

/// A running `millpond`. Killed when dropped.
pub struct Millpond {
    child: Child,
    ready: BTreeMap<String, Vec<SocketAddr>>,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    dir: PathBuf,
    /// It has been waited for: from then on its id may be another's.
    gone: bool,
    /// Removed with the process, if it was made for it.
    _made: Option<TempDir>,
}

/// What became of a `millpond` that ran to its end.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `millpond ARGS` in `dir` to its end, which must come by itself.
pub fn finish(args: &[&str], dir: &Path) -> Finished {
    let mut pond = Millpond::spawn(args, dir);
    let code = pond.wait();
    Finished { code, stdout: pond.stdout.text(), stderr: pond.stderr.text() }
}

impl Millpond {
    /// Runs `millpond ARGS` in a temporary folder, and waits until each of `roles` is ready.
    pub fn start(args: &[&str], roles: &[&str]) -> Millpond {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Millpond::start_in(dir.path(), args, roles).keeping(dir)
    }

    /// The same in a folder of the caller's, which stays.
    pub fn start_in(dir: &Path, args: &[&str], roles: &[&str]) -> Millpond {
        let mut pond = Millpond::spawn(args, dir);
        pond.ready = pond.stdout.wait_for(&format!("ready lines of {roles:?}"), |lines| {
            let ready = ready(lines);
            roles.iter().all(|role| ready.contains_key(*role)).then_some(ready)
        });
        pond
    }

    /// Runs `millpond run` with this configuration in a temporary folder, as `millpond.toml`.
    pub fn run(config: &str, roles: &[&str]) -> Millpond {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("millpond.toml"), config).expect("the folder can be written");
        Millpond::start_in(dir.path(), &["run", "--config", "millpond.toml"], roles).keeping(dir)
    }

    /// Keeps a folder as long as the process.
    pub fn keeping(mut self, dir: TempDir) -> Millpond {
        self._made = Some(dir);
        self
    }

    fn spawn(args: &[&str], dir: &Path) -> Millpond {
        let mut child = Command::new(env!("CARGO_BIN_EXE_millpond"))
            .args(args)
            .current_dir(dir)
            .env_remove("MILLPOND_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = Lines::follow(child.stdout.take().expect("piped"));
        let stderr = Lines::follow(child.stderr.take().expect("piped"));
        // What it said last is what one wants to read when it never becomes ready.
        *lock(&stdout.companion) = Some(Arc::clone(&stderr));
        Millpond { child, ready: BTreeMap::new(), stdout, stderr, dir: dir.to_owned(), gone: false, _made: None }
    }

    /// The first address that a role is ready at: `proxy`, `admin`, `ingest`, `queue` or `shards`.
    pub fn address(&self, role: &str) -> SocketAddr {
        let addresses = self.ready.get(role).and_then(|addresses| addresses.first());
        *addresses.unwrap_or_else(|| panic!("{role} is not ready; ready are {:?}", self.ready))
    }

    /// Where clients connect.
    pub fn proxy(&self) -> SocketAddr {
        self.address("proxy")
    }

    /// Where clients speak TLS.
    pub fn tls(&self) -> SocketAddr {
        self.address("proxy over TLS")
    }

    pub fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    /// The folder it runs in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it has in use, in MiB.
    pub fn resident_mib(&self) -> usize {
        self.kernel_says("VmRSS").trim_end_matches(" kB").parse::<usize>().expect("a number") / 1024
    }

    /// A field of `/proc/PID/status`.
    pub fn kernel_says(&self, field: &str) -> String {
        kernel_says(&self.pid().to_string(), field)
    }

    /// Sends a signal by name, as in `"TERM"` or `"HUP"`.
    pub fn signal(&self, name: &str) {
        assert!(!self.gone, "it has ended, and its id may be another's");
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.expect("the command kill exists").success(), "SIG{name} could not be sent");
    }

    /// Ends it at once, as `kill -9` does, and waits until it is gone. It must not have ended by itself.
    #[track_caller]
    pub fn kill9(&mut self) {
        let ended = self.child.try_wait().expect("it can be waited for");
        assert!(ended.is_none(), "it has ended by itself: {ended:?}; stderr:\n{}", self.stderr.text());
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
        self.gone = true;
    }

    /// Ends it at once, unless it has ended by itself; whether it had.
    pub fn end(&mut self) -> bool {
        let by_itself = self.child.try_wait().expect("it can be waited for").is_some();
        if !by_itself {
            self.kill9();
        }
        self.gone = true;
        by_itself
    }

    /// Waits until it has ended by itself; its exit code, `None` if a signal ended it.
    pub fn wait(&mut self) -> Option<i32> {
        let status = eventually("the end of the process", || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}; stderr:\n{}", self.stderr.text())),
        });
        self.gone = true;
        self.stdout.ended();
        self.stderr.ended();
        status.code()
    }

    /// What it has written to stderr: its log.
    pub fn log(&self) -> &Lines {
        &self.stderr
    }

    /// The lines of its access log, if it logs JSON.
    pub fn access_log(&self) -> Vec<Value> {
        access_lines(&self.stderr.all())
    }

    /// Waits until as many lines of the access log as `count` are what `wanted` says.
    #[track_caller]
    pub fn wait_for_access(&self, count: usize, wanted: impl Fn(&Value) -> bool) {
        self.stderr.wait_for(&format!("{count} such lines in the access log"), |lines| {
            (access_lines(lines).iter().filter(|line| wanted(line)).count() == count).then_some(())
        });
    }
}

/// A field of what the kernel tells of a process; `self` is the one that asks.
pub fn kernel_says(pid: &str, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let told = |line: &str| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned());
    status.lines().find_map(told).expect("the kernel tells")
}

impl Drop for Millpond {
    fn drop(&mut self) {
        // A test that failed wants to know whether it had ended before, and how.
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.stderr.ended();
            eprintln!("millpond {} (ended: {ended:?}) wrote to stderr:\n{}", self.child.id(), self.stderr.text());
        }
    }
}

/// `ready http://ADDR ROLE` lines, by role; what is said of `https` as `ROLE over TLS`.
fn ready(lines: &[String]) -> BTreeMap<String, Vec<SocketAddr>> {
    let mut ready: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
    for line in lines {
        if let Some((url, role)) = line.strip_prefix("ready ").and_then(|rest| rest.split_once(' ')) {
            let (role, address) = match url.strip_prefix("https://") {
                Some(address) => (format!("{role} over TLS"), Some(address)),
                None => (role.to_owned(), url.strip_prefix("http://")),
            };
            let address = address.and_then(|address| address.parse().ok());
            ready.entry(role).or_default().push(address.unwrap_or_else(|| panic!("odd line: {line}")));
        }
    }
    ready
}

fn access_lines(lines: &[String]) -> Vec<Value> {
    let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line.get("outcome").is_some()).collect()
}

/// The lines of a stream, as they come.
#[derive(Default)]
pub struct Lines {
    seen: Mutex<Seen>,
    grown: Condvar,
    /// What else to show when a line does not come.
    companion: Mutex<Option<Arc<Lines>>>,
}

#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn follow(stream: impl Read + Send + 'static) -> Arc<Lines> {
        let lines = Arc::new(Lines::default());
        let filled = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                lock(&filled.seen).lines.push(String::from_utf8_lossy(&line).into_owned());
                filled.grown.notify_all();
            }
            lock(&filled.seen).ended = true;
            filled.grown.notify_all();
        });
        lines
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        lock(&self.seen).lines.clone()
    }

    /// All lines so far, as they came.
    pub fn text(&self) -> String {
        self.all().iter().map(|line| format!("{line}\n")).collect()
    }

    /// Waits until `find` finds something in the lines so far.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, find: impl Fn(&[String]) -> Option<T>) -> T {
        let mut found = None;
        let seen = self.wait_while(|seen| {
            found = find(&seen.lines);
            found.is_none() && !seen.ended
        });
        let lines = seen.lines.join("\n");
        drop(seen);
        found.unwrap_or_else(|| {
            let companion = lock(&self.companion).as_ref().map(|other| other.text()).unwrap_or_default();
            panic!("waited for {what}; what came:\n{lines}\n{companion}")
        })
    }

    /// Waits for a line that holds `text`.
    #[track_caller]
    pub fn wait_for_line(&self, text: &str) -> String {
        self.wait_for(&format!("a line with {text:?}"), |lines| lines.iter().find(|line| line.contains(text)).cloned())
    }

    /// Waits for the end of the stream.
    fn ended(&self) {
        drop(self.wait_while(|seen| !seen.ended));
    }

    fn wait_while(&self, mut waits: impl FnMut(&mut Seen) -> bool) -> MutexGuard<'_, Seen> {
        let seen = self.grown.wait_timeout_while(lock(&self.seen), PATIENCE, |seen| waits(seen));
        seen.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A test that failed elsewhere does not poison what this one looks at.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
