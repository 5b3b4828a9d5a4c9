//! The command as people run it: what it prints and how it exits.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const DEADLINE: Duration = Duration::from_secs(20);

/// The command with an environment of its own, so that nobody's settings reach it.
fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).env_clear().env("HOME", home).stdin(Stdio::null());
    command
}

fn run(home: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        command(home, arguments).envs(environment.iter().copied()).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("ended by itself"), text(stdout), text(stderr))
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary directory")
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let home = home();
    for name in ["dev", "registry", "ring", "publish", "tail", "token", "check-config"] {
        let (code, out, _) = run(home.path(), &[name, "--help"], &[]);
        assert!(
            code == 0 && out.contains("Examples:") && out.contains(&format!("  tidegate {name}")),
            "{out}"
        );
    }
    let (code, out, _) = run(home.path(), &["version"], &[]);
    assert!(
        code == 0 && out.contains("tidegate 0.") && out.contains("commit ") && out.contains("rustc 1."),
        "{out}"
    );
    let (code, out, _) = run(home.path(), &["version", "--json"], &[]);
    let object: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(code == 0 && object["rustc"].is_string(), "{out}");
}

#[test]
fn the_ring_is_computed_from_a_list() {
    let home = home();
    let file = home.path().join("members.toml");
    let member = |id: u32| format!("[[members]]\nid = {id}\naddress = \"10.0.0.{id}:8004\"\n");
    std::fs::write(&file, format!("version = 4\n{}{}{}", member(0), member(1), member(2))).expect("written");
    let file = file.to_str().expect("UTF-8");
    let (code, out, errors) = run(home.path(), &["ring", "show", "--members-file", file], &[]);
    assert!(
        code == 0 && out.contains("10.0.0.2:8004") && out.contains("version 4, digest "),
        "{out}{errors}"
    );
    let json = |arguments: &[&str]| {
        let arguments = [&["ring"], arguments, &["--members-file", file, "-o", "json"]].concat();
        let (code, out, errors) = run(home.path(), &arguments, &[]);
        assert_eq!((code, errors.as_str()), (0, ""));
        serde_json::from_str::<serde_json::Value>(&out).expect("JSON")
    };
    let shares: f64 = json(&["show"])["members"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|member| member["primary_percent"].as_f64().expect("a number"))
        .sum();
    assert!((shares - 100.0).abs() < 1e-6, "{shares}");
    let added = json(&["simulate", "--add", "10.0.0.3:8004"]);
    assert_eq!((&added["fair_share_percent"], &added["after"]["version"]), (&25.0.into(), &5.into()));
    assert!(
        added["primary_moves_percent"].as_f64().is_some_and(|moved| (15.0..35.0).contains(&moved)),
        "{added}"
    );
    let of = json(&["of", "user:alice"]);
    assert_eq!(of["subjects"][0]["members"].as_array().map(Vec::len), Some(2), "{of}");
    for (arguments, said) in [
        (&["simulate", "--members-file", file][..], "which change?"),
        (&["simulate", "--members-file", file, "--remove", "7"], "no member 7"),
        (&["simulate", "--members-file", file, "--weight", "1=99"], "between 1 and 16"),
        (&["show"], "--members-file FILE"),
    ] {
        let (code, _, errors) = run(home.path(), &[&["ring"], arguments].concat(), &[]);
        assert!(code == 2 && errors.contains(said), "{arguments:?}: {errors}");
    }
}

#[test]
fn what_check_config_prints_is_a_configuration() {
    let home = home();
    let (code, defaults, _) = run(home.path(), &["check-config", "--defaults"], &[]);
    assert_eq!(code, 0);
    let file = home.path().join("tidegate.toml");
    std::fs::write(&file, defaults).expect("written");
    let path = file.to_str().expect("UTF-8");
    let (code, effective, errors) = run(home.path(), &["check-config", "--config", path], &[]);
    assert!(code == 0 && effective.ends_with("# ok\n"), "{effective}{errors}");
    std::fs::write(&file, &effective).expect("written");
    let (code, again, errors) = run(home.path(), &["check-config", "--config", path], &[]);
    assert_eq!((code, again), (0, effective), "{errors}");
}

#[test]
fn a_wrong_configuration_is_exit_code_2_and_all_of_it_is_told() {
    let home = home();
    let environment = [("TIDEGATE__SERVER__PUBIC", "x"), ("TIDEGATE__LOG__PARTITIONS", "0")];
    for name in ["dev", "check-config"] {
        let (code, out, errors) = run(home.path(), &[name, "--set", "history.age=soon"], &environment);
        assert_eq!((code, out.as_str()), (2, ""), "{errors}");
        for part in [
            "3 errors",
            "TIDEGATE__SERVER__PUBLIC",
            "log.partitions",
            "history.age",
            "check-config --defaults",
        ] {
            assert!(errors.contains(part), "{part} in {errors}");
        }
    }
    let (code, _, errors) = run(home.path(), &["dev", "--public", "0.0.0.0:0"], &[]);
    assert!(code == 2 && errors.contains("--i-know"), "{errors}");
}

#[test]
fn secrets_are_on_no_output() {
    let home = home();
    let canary = "canary-0123456789-0123456789-0123456789";
    let environment = [("TIDEGATE__AUTH__HMAC_SECRET", canary), ("TIDEGATE__API__KEYS", canary)];
    let (code, out, errors) = run(home.path(), &["check-config"], &environment);
    assert!(code == 0 && !out.contains("canary") && !errors.contains("canary"), "{out}{errors}");
    let (code, out, errors) = run(home.path(), &["token", "--user", "alice"], &environment);
    assert!(
        code == 0 && out.matches('.').count() == 2 && !out.contains("canary") && errors.is_empty(),
        "{out}{errors}"
    );
    let (code, _, errors) = run(home.path(), &["token", "--user", "alice"], &[]);
    assert!(code == 2 && errors.contains("--secret-file"), "{errors}");
}

#[test]
fn an_unreachable_server_is_exit_code_3() {
    let home = home();
    // Port 1 of loopback: nothing listens there.
    let (code, _, errors) = run(home.path(), &["publish", "a", "1", "--api", "http://127.0.0.1:1"], &[]);
    assert!(code == 3 && errors.contains("tidegate dev"), "{errors}");
    let (code, _, errors) = run(home.path(), &["tail", "a", "--server", "http://127.0.0.1:1"], &[]);
    assert!(code == 3 && errors.contains("tidegate dev"), "{errors}");
}

/// A running `tidegate dev`; killed when dropped.
struct Dev {
    child: Child,
    banner: String,
}

impl Dev {
    fn start(home: &Path, more: &[&str]) -> Self {
        let ports = ["dev", "--public", "127.0.0.1:0", "--api", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let mut command = command(home, &[&ports, more].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        let mut banner = String::new();
        for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
            let line = line.expect("UTF-8");
            banner.push_str(&line);
            banner.push('\n');
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        Self { child, banner }
    }

    /// What follows the first word in the banner's line that begins with it.
    fn told(&self, word: &str) -> String {
        let line =
            self.banner.lines().find(|line| line.trim_start().starts_with(word)).expect("in the banner");
        line.split_whitespace().nth(1).expect("a value").to_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("fits")).expect("not 0");
        kill_process(pid, signal).expect("sent");
    }

    fn ended(&mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        let status = loop {
            assert!(begun.elapsed() < DEADLINE, "did not end in time");
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                break status;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        };
        let mut errors = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut errors).expect("UTF-8");
        (status, errors)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn dev_publishes_tails_and_ends_on_sigterm() {
    let home = home();
    let mut dev = Dev::start(home.path(), &[]);
    assert_eq!(dev.told("data"), home.path().join(".local/share/tidegate/dev").to_str().expect("UTF-8"));
    let (public, api) = (dev.told("public"), dev.told("api"));
    let publish = ["publish", "score:42", "{\"home\":1}", "--event", "goal", "--api", &api];
    let (code, first, errors) = run(home.path(), &publish, &[]);
    assert!(code == 0 && first.starts_with("score:42  pos "), "{first}{errors}");
    let offset = first.trim().rsplit('.').next().expect("an offset");
    let (code, bad, errors) = run(home.path(), &["publish", "bad channel", "1", "--api", &api], &[]);
    assert!(code == 1 && bad.is_empty() && errors.contains("bad_channel"), "{bad}{errors}");
    let tail = ["tail", "score:42", "--last", "1", "--count", "1", "--server", &public];
    let (code, line, notes) = run(home.path(), &tail, &[]);
    assert!(code == 0 && line.ends_with("{\"home\":1}\n"), "{line}{notes}");
    assert!(line.contains(" score:42 goal ") && line.contains(&format!(":{offset} ")), "{line}");
    let cursor = notes.trim().rsplit(' ').next().expect("a cursor").to_owned();
    run(home.path(), &["publish", "score:42", "2", "--api", &api], &[]);
    let tail = ["tail", "score:42", "--cursor", &cursor, "--count", "1", "--json", "--server", &public];
    let (code, lines, notes) = run(home.path(), &tail, &[]);
    assert!(code == 0 && lines.contains("\"data\":2") && notes.contains("recovered"), "{lines}{notes}");
    dev.signal(Signal::TERM);
    let (status, log) = dev.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("memory comes back late"), "{log}");
    for phase in ["drain", "gateway", "router", "log"] {
        assert!(log.contains(&format!("\"phase\":\"{phase}\"")), "{phase} in {log}");
    }
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("each line is JSON when nobody reads it");
    }
}

#[test]
fn tail_follows_over_tls_and_says_whom_it_does_not_trust() {
    let home = home();
    let mut dev = Dev::start(home.path(), &["--tls"]);
    let (public, api) = (dev.told("public"), dev.told("api"));
    assert!(public.starts_with("https://"), "{public}");
    let cert = PathBuf::from(dev.told("tls"));
    run(home.path(), &["publish", "score:42", "{\"home\":1}", "--api", &api], &[]);
    let tail = ["tail", "score:42", "--last", "1", "--count", "1", "--server", &public];
    let trusting = [&tail[..], &["--tls-ca", cert.to_str().expect("UTF-8")]].concat();
    let (code, line, notes) = run(home.path(), &trusting, &[]);
    assert!(code == 0 && line.ends_with("{\"home\":1}\n"), "{line}{notes}");
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("signed");
    let path = home.path().join("other.pem");
    std::fs::write(&path, other.cert.pem()).expect("written");
    let distrusting = [&tail[..], &["--tls-ca", path.to_str().expect("UTF-8")]].concat();
    let (code, line, notes) = run(home.path(), &distrusting, &[]);
    assert!(code == 2 && line.is_empty() && notes.contains("not trusted"), "{line}{notes}");
    let plain = public.replace("https", "http");
    for (server, ca, said) in
        [(&public, home.path().join("nowhere"), "--tls-ca"), (&plain, path, "--tls-ca is for --server https")]
    {
        let line = ["tail", "a", "--server", server, "--tls-ca", ca.to_str().expect("UTF-8")];
        let (code, _, notes) = run(home.path(), &line, &[]);
        assert!(code == 2 && notes.contains(said), "{notes}");
    }
    dev.signal(Signal::TERM);
    assert_eq!(dev.ended().0.code(), Some(0));
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let home = home();
    let mut dev = Dev::start(home.path(), &["--set", "drain.wait=1h"]);
    dev.signal(Signal::INT);
    let mut log = BufReader::new(dev.child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("\"phase\":\"drain\"") {
        line.clear();
        assert!(log.read_line(&mut line).expect("UTF-8") > 0, "the drain begins");
    }
    dev.child.stderr = Some(log.into_inner());
    dev.signal(Signal::INT);
    assert_eq!(dev.ended().0.code(), Some(130));
}
