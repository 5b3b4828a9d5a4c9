//! Tells the program what it was built from: the commit (`TIDEGATE_COMMIT`, or git's), the compiler, the platform.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=TIDEGATE_COMMIT");
    // One line is added here at every commit and checkout; there is no such file in a source archive.
    let log = Path::new("../.git/logs/HEAD");
    if log.exists() {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    let commit = std::env::var("TIDEGATE_COMMIT").ok().filter(|commit| !commit.is_empty());
    if let Some(commit) = commit.or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"])) {
        println!("cargo:rustc-env=TIDEGATE_BUILD_COMMIT={commit}");
    }
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = output(&rustc, &["--version"]).unwrap_or_default();
    let number = version.split_whitespace().nth(1).unwrap_or("unknown");
    println!("cargo:rustc-env=TIDEGATE_BUILD_RUSTC={number}");
    println!("cargo:rustc-env=TIDEGATE_BUILD_TARGET={}", std::env::var("TARGET").unwrap_or_default());
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
