//! A PostgreSQL server as a child process, ended by the id it was started with.
//!
//! It refuses to run as root, so where tests do, it runs as `nobody`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls, Row};

use super::pipeline::free_address;

/// User and group `nobody`, as `setpriv` takes them.
const NOBODY: u32 = 65_534;
/// What the server asks clients for.
const PASSWORD: &str = "open sesame";

/// A server with one empty database.
pub struct Postgres {
    dir: TempDir,
    address: SocketAddr,
    child: Option<Child>,
    runtime: Runtime,
}

impl Postgres {
    /// Makes the files of a server, and starts it.
    pub fn start() -> Postgres {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("password"), PASSWORD).expect("written");
        if is_root() {
            for path in [dir.path().to_owned(), dir.path().join("password")] {
                chown(path, Some(NOBODY), Some(NOBODY)).expect("given to nobody");
            }
        }
        let made = command("initdb")
            .args(["--auth=scram-sha-256", "--username=millpond", "--pwfile=password", "--no-sync", "--encoding=UTF8"])
            .args(["--locale=C", "--pgdata=data"])
            .current_dir(dir.path())
            .output()
            .expect("initdb starts");
        assert!(made.status.success(), "initdb has failed: {}", String::from_utf8_lossy(&made.stderr));
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut server = Postgres { dir, address: free_address(), child: None, runtime };
        server.restart();
        server
    }

    /// Starts it at the address where it was before, and waits until it is ready.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let mut child = command("postgres")
            .args(["-D", "data", "-p", &self.address.port().to_string(), "-c", "fsync=off"])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("postgres starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        self.child = Some(child);
        let mut said = Vec::new();
        for line in lines.by_ref().map_while(Result::ok) {
            let is_ready = line.ends_with("database system is ready to accept connections");
            said.push(line);
            if is_ready {
                // What it says later must not block it.
                std::thread::spawn(move || lines.for_each(drop));
                return;
            }
        }
        panic!("the PostgreSQL server did not become ready:\n{}", said.join("\n"))
    }

    /// Ends it with all its connections, as an operator in a hurry does, and waits until it is gone.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        // SIGQUIT: it ends its children and itself at once, and recovers when it is started again.
        let sent = Command::new("kill").args(["-QUIT", &child.id().to_string()]).status();
        assert!(sent.expect("the command kill exists").success(), "SIGQUIT could not be sent");
        child.wait().expect("it can be waited for");
    }

    /// What programs connect with.
    pub fn url(&self) -> String {
        format!("postgres://millpond:{}@{}/postgres", PASSWORD.replace(' ', "%20"), self.address)
    }

    /// The rows that a query gives; an error where the server or the table is not there.
    pub fn query(&self, sql: &str) -> Result<Vec<Row>, String> {
        self.runtime.block_on(async {
            let (client, connection): (Client, _) =
                tokio_postgres::connect(&self.url(), NoTls).await.map_err(|error| error.to_string())?;
            let speaking = tokio::spawn(connection);
            let rows = client.query(sql, &[]).await.map_err(|error| format!("{error:?}"));
            drop(client);
            let _ = speaking.await;
            rows
        })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.stop();
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn command(program: &str) -> Command {
    let program = folder().join(program);
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        let nobody = NOBODY.to_string();
        command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.env("LC_ALL", "C");
    command
}

/// The folder of the server's programs, brought if they are not here.
fn folder() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/postgres-server");
        let told = Command::new(tool).stderr(Stdio::inherit()).output().expect("tools/postgres-server runs");
        assert!(told.status.success(), "tools/postgres-server has failed");
        PathBuf::from(String::from_utf8(told.stdout).expect("a path").trim())
    };
    FOLDER.get_or_init(find).clone()
}
