// SPDX-License-Identifier: Apache-2.0
//! h2spec, built from the Go module proxy once, with one function added: it turns the requests of a web client into CONNECT.
//!
//! Every case begins its requests with the same four fields, so it is enough to look for these where h2spec encodes a header list. What a case
//! adds, leaves out, doubles or breaks on purpose stays as it is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use harness::{enter::profile_folder, skip, tools};

const MODULE: &str = "github.com/summerwind/h2spec@v2.2.1+incompatible";

/// The module has no `go.mod`. These are old enough for the Go of any Debian that is still kept.
const GO_MOD: &str = "module github.com/summerwind/h2spec

go 1.17

require (
	github.com/fatih/color v1.15.0
	github.com/spf13/cobra v1.7.0
	golang.org/x/net v0.17.0
)
";

const AS_CONNECT: &str = r#"package spec

import "golang.org/x/net/http2/hpack"

// asConnect replaces the four fields every plain request begins with by those of a CONNECT.
func asConnect(headers []hpack.HeaderField) []hpack.HeaderField {
	if len(headers) < 4 {
		return headers
	}
	names := []string{":method", ":scheme", ":path", ":authority"}
	for n, name := range names {
		if headers[n].Name != name || headers[n].Value == "" {
			return headers
		}
	}
	connect := []hpack.HeaderField{{Name: ":method", Value: "CONNECT"}, headers[3]}
	return append(connect, headers[4:]...)
}
"#;

/// Where the encoder takes the fields from, and where it is to take them from.
const ENCODES: [&str; 2] = ["range headers {", "range asConnect(headers) {"];

/// The program, built if it is not there yet. An error that says why it cannot be had here is a skip.
pub(crate) fn h2spec() -> Result<PathBuf> {
    let folder = profile_folder()?.join("../tools/h2spec-2.2.1-connect");
    let program = folder.join("h2spec");
    if program.is_file() {
        return Ok(program);
    }
    let go = tools::GO.path().map_err(|error| skip(format!("{error:#}")))?;
    build(&go, &folder).map_err(|error| skip(format!("h2spec cannot be built here: {error:#}")))?;
    Ok(program)
}

fn build(go: &Path, folder: &Path) -> Result<()> {
    let source = folder.join(format!("source-{}", std::process::id()));
    fs::create_dir_all(&source)?;
    let said = run(Command::new(go).args(["mod", "download", "-json", MODULE]).current_dir(folder))?;
    let said: serde_json::Value = serde_json::from_str(&said).context("read what `go mod download` says")?;
    let module = said["Dir"].as_str().context("`go mod download` does not say where the module is")?;
    copy(Path::new(module), &source)?;
    fs::write(source.join("go.mod"), GO_MOD)?;
    fs::write(source.join("spec/asconnect.go"), AS_CONNECT)?;
    let encoder = source.join("spec/connection.go");
    let code = fs::read_to_string(&encoder)?;
    ensure!(code.matches(ENCODES[0]).count() == 1, "{} is not as it was", encoder.display());
    fs::write(&encoder, code.replace(ENCODES[0], ENCODES[1]))?;
    run(Command::new(go)
        .args(["build", "-o", "h2spec", "./cmd/h2spec"])
        .current_dir(&source)
        .env("GOFLAGS", "-mod=mod"))?;
    // Into its place in one step: another run may be building it as well.
    fs::rename(source.join("h2spec"), folder.join("h2spec"))?;
    fs::remove_dir_all(&source)?;
    Ok(())
}

fn run(command: &mut Command) -> Result<String> {
    // A newer Go than the one that is there is not wanted.
    let output =
        command.env("GOTOOLCHAIN", "local").env_remove("GOBIN").stdin(Stdio::null()).output().context("run go")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`go` failed: {}", error.lines().last().unwrap_or("it does not say why"));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Files and folders; the module cache is read-only, the copy is not.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&place)?;
            copy(&entry.path(), &place)?;
        } else {
            fs::write(&place, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// The example, built with the profile of this program.
pub(crate) fn echo() -> Result<PathBuf> {
    let folder = profile_folder()?;
    let program = folder.join("examples/echo");
    let Some(cargo) = env::var_os("CARGO") else {
        ensure!(program.is_file(), "{} is not built; start this test with cargo", program.display());
        return Ok(program);
    };
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--profile", profile, "--package", "hbone", "--example", "echo"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env("CARGO_TARGET_DIR", folder.parent().context("a profile folder without a parent")?)
        .stdin(Stdio::null())
        .status()
        .context("run cargo build")?;
    ensure!(status.success(), "the example `echo` does not build");
    Ok(program)
}
