//! A process of the real binary, and what it logs.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

/// See the module. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts it. What it logs is kept.
    pub(crate) fn spawn(mut command: Command, stderr: &Arc<Mutex<Vec<u8>>>) -> Self {
        command.env("RUST_BACKTRACE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let mut pipe = child.stderr.take().expect("piped");
        let stderr = Arc::clone(stderr);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                stderr.lock().expect("not poisoned").extend_from_slice(&buffer[..count]);
            }
        });
        Self { child, reader: Some(reader) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waited for")
    }

    /// Waits until all that it logged has been read.
    pub(crate) fn reap(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader ends with the pipe");
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process id");
        kill_process(pid, signal).expect("the signal is sent");
    }

    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.reap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// `TIDEGATE_BIN`, or the binary that was built beside this test.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDEGATE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("own path");
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let path = profile.join("tidegate");
    assert!(
        path.exists(),
        "{} is missing: run `cargo build -p tidegate` with the same profile first, or set TIDEGATE_BIN",
        path.display()
    );
    path
}

/// What was logged so far.
pub(crate) fn text_of(stderr: &Arc<Mutex<Vec<u8>>>) -> String {
    String::from_utf8_lossy(&stderr.lock().expect("not poisoned")).into_owned()
}
