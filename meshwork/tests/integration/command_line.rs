//! The commands that print something and end.

use std::process::Stdio;

use serde_json::Value;

use crate::process::{self, meshwork};

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs `meshwork check` on `mesh`.
fn check(mesh: &str, flags: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mesh.yaml");
    std::fs::write(&file, mesh).unwrap();
    let output = meshwork(&[&["check", file.to_str().unwrap()], flags].concat());
    (output.status.code(), text(&output.stdout).to_owned())
}

#[test]
fn check_says_that_a_mesh_is_good() {
    let (code, said) = check("mesh: a\nservices: {b: {protocol: http, instances: 3}}\n", &[]);
    assert_eq!((code, said.as_str()), (Some(0), "good: the mesh `a` can run: 1 service, 3 instances\n"));
}

#[test]
fn check_tells_every_mistake_at_once() {
    let mesh = "mesh: a\nservices:\n  b: {protocl: http, calls: [c], health: {interval: 5}}\n";
    let (code, said) = check(mesh, &[]);
    assert_eq!(code, Some(1));
    for part in ["mesh.yaml:3:", "did you mean `protocol`?", "`c`", "interval"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains('\u{1b}'), "no colours where nobody looks");
}

#[test]
fn check_speaks_json() {
    let (code, said) = check("mesh: a\nservices: {b: {protocl: http}}\n", &["--format", "json"]);
    let document: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, Some(1));
    assert_eq!(document["good"], false);
    let finding = &document["findings"][0];
    assert_eq!((&finding["line"], &finding["nearest"]), (&Value::from(2), &Value::from("protocol")));
}

#[test]
fn colours_come_when_they_are_asked_for() {
    let (_, said) = check("mesh: a\nservices: {b: {protocl: http}}\n", &["--color", "always"]);
    assert!(said.contains('\u{1b}'), "{said}");
}

#[test]
fn a_file_that_is_not_there_is_another_exit_code() {
    let output = meshwork(&["check", "/nowhere/mesh.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nowhere/mesh.yaml"), "{}", text(&output.stderr));
}

#[test]
fn the_schema_describes_the_mesh_file() {
    let schema: Value = serde_json::from_slice(&meshwork(&["schema"]).stdout).unwrap();
    assert!(schema["properties"]["services"].is_object(), "{schema}");
}

#[test]
fn a_token_is_for_one_instance() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    let arguments =
        ["token", "--secret", secret.to_str().unwrap(), "--subject", "service/orders", "--instance", "orders-0"];
    let first = meshwork(&arguments);
    assert!(first.status.success());
    let secret = process::secret(&secret);
    let claims = control::token::verify(&secret, text(&first.stdout).trim(), 0).unwrap();
    assert_eq!((claims.subject.to_string().as_str(), claims.instance.as_str()), ("service/orders", "orders-0"));
}

#[test]
fn every_command_has_help_and_every_shell_completions() {
    let commands = ["demo", "up", "check", "schema", "status", "apply", "diff", "history", "rollback"];
    for command in commands.into_iter().chain(["control-plane", "broker", "gateway", "sidecar", "token"]) {
        let output = meshwork(&[command, "--help"]);
        assert!(output.status.success() && text(&output.stdout).contains("Usage: meshwork"), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&meshwork(&["completions", shell]).stdout).contains("control-plane"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure_of_the_program() {
    use std::os::unix::process::ExitStatusExt as _;
    const SIGPIPE: i32 = 13;
    for (command, code) in [
        (&["schema"][..], 0),
        (&["completions", "zsh"], 0),
        // It has no mesh in it.
        (&["check", "/dev/null", "--format", "json"], 1),
    ] {
        let mut child = process::command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let status = output.status;
        // It ends by SIGPIPE, as programs do that are not asked any more, or has written all before the reader has gone.
        assert!(status.signal() == Some(SIGPIPE) || status.code() == Some(code), "{command:?}: {status}");
        assert_eq!(text(&output.stderr), "", "{command:?}");
    }
}

#[test]
fn a_role_says_at_once_that_its_roots_or_its_control_plane_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "good day").unwrap();
    let file = file.to_str().unwrap();
    let arguments =
        ["gateway", "--gateway", "g", "--mesh", "m", "--instance", "g-0", "--token-file", file, "--data", "d"];
    for (control, says) in [("nohost", "HOST:PORT"), ("127.0.0.1:1", "file holds no usable roots")] {
        let output = meshwork(&[&arguments[..], &["--roots", file, "--control", control]].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }
}

#[test]
fn nothing_runs_where_nothing_was_started() {
    let folder = tempfile::tempdir().unwrap();
    let output = meshwork(&["status", "--data", folder.path().to_str().unwrap()]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), "nothing runs here\n"));
}

#[test]
fn a_token_in_a_file_is_its_owners_alone_and_replaced_whole() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (secret, out) = (folder.path().join("secret"), folder.path().join("orders-0.token"));
    std::fs::write(&out, "an old token that is longer than any other, and that everybody may read").unwrap();
    let arguments = ["token", "--subject", "service/orders", "--instance", "orders-0", "--secret"];
    let tell = meshwork(&[&arguments[..], &[secret.to_str().unwrap()]].concat());
    let write = meshwork(&[&arguments[..], &[secret.to_str().unwrap(), "--out", out.to_str().unwrap()]].concat());
    assert!(tell.status.success() && write.status.success() && write.stdout.is_empty());
    let secret = process::secret(&secret);
    for token in [text(&tell.stdout).trim(), &std::fs::read_to_string(&out).unwrap()] {
        let claims = control::token::verify(&secret, token, process::wall_s()).unwrap();
        assert_eq!(claims.instance.as_str(), "orders-0");
    }
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
}
