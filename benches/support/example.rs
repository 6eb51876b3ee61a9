//! The examples as programs.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

/// An example as it is now, built like this benchmark. `cargo bench` builds none, so this asks cargo for it.
pub(crate) fn example(name: &str) -> Command {
    let bench = env::current_exe().expect("a benchmark has a path");
    let profile = bench
        .ancestors()
        .nth(2)
        .expect("<profile>/deps/<benchmark>");
    let target = profile.parent().expect("<target>/<profile>");
    // With the features of this benchmark, so that the library need not be built once more.
    let mut features = vec!["serve"];
    if cfg!(feature = "http2") {
        features.push("http2");
    }
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args(["build", "--quiet", "--example", name, "--features"])
        .arg(features.join(","))
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg("--target-dir")
        .arg(target);
    if profile.file_name() != Some(OsStr::new("debug")) {
        build.arg("--release");
    }
    let built = build.status();
    assert!(
        built.as_ref().is_ok_and(|status| status.success()),
        "{build:?}: {built:?}"
    );
    let path: PathBuf = profile
        .join("examples")
        .join(format!("{name}{}", env::consts::EXE_SUFFIX));
    Command::new(path)
}
