//! A mesh that is changed while it runs: by its file, by `meshwork apply` from elsewhere, by a rollback, and over restarts.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::application::{self, mesh};
use crate::process::{Up, command, eventually, gateway, get, instance, meshwork, signal, status};

/// `meshwork COMMAND …` about the mesh in `folder`.
fn ask(folder: &Path, words: &[&str]) -> (Option<i32>, String) {
    let output: Output = meshwork(&[words, &["--data", folder.to_str().unwrap()]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

fn revision(folder: &Path) -> u64 {
    let (_, text) = ask(folder, &["history", "--format", "json"]);
    serde_json::from_str::<Value>(&text).unwrap()["current"].as_u64().unwrap()
}

fn instances(folder: &Path) -> Vec<String> {
    let status = status(folder);
    let names = status["instances"].as_array().unwrap().iter().map(|one| one["instance"].as_str().unwrap().to_owned());
    names.collect()
}

fn pid(folder: &Path, name: &str) -> u64 {
    eventually("it runs", || instance(folder, name)["pid"].as_u64())
}

#[test]
fn an_edit_of_the_mesh_file_starts_and_stops_instances() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("gateway-public", "ready");
    let (front, port) = (pid(folder.path(), "front-0"), gateway(folder.path()));
    up.edit(&mesh(", instances: 2"));
    up.wait_for_text("services.back.instances: 1 → 2");
    up.wait_for("back-1", "ready");
    up.wait_for_text("the mesh runs as revision 2 says");
    assert_eq!(get(port, "/call/back").unwrap().0, "HTTP/1.1 200 OK");
    up.edit(&mesh(""));
    up.wait_for("back-1", "stopped");
    up.wait_for_text("the mesh runs as revision 3 says");
    assert!(!instances(folder.path()).contains(&"back-1".to_owned()));
    // Nobody else was touched.
    assert_eq!((pid(folder.path(), "front-0"), gateway(folder.path())), (front, port));
    up.signal("INT");
    assert!(up.end().0.success());
}

#[test]
fn what_differs_is_replaced_one_at_a_time_and_no_request_fails() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(", instances: 2"));
    up.wait_for("gateway-public", "ready");
    let before = [pid(folder.path(), "back-0"), pid(folder.path(), "back-1")];
    let (address, done) = (gateway(folder.path()), Arc::new(AtomicBool::new(false)));
    let ended = done.clone();
    let clients = std::thread::spawn(move || {
        let (mut good, mut bad) = (0, Vec::new());
        while !ended.load(Ordering::Relaxed) {
            match get(address, "/call/back") {
                Some((status, body)) if status == "HTTP/1.1 200 OK" && body.starts_with("process ") => good += 1,
                other => bad.push(other),
            }
        }
        (good, bad)
    });
    up.edit(&mesh(", instances: 2, env: {COLOUR: red}"));
    up.wait_for("back-0", "stopped");
    up.wait_for("back-0", "ready");
    up.wait_for("back-1", "stopped");
    up.wait_for("back-1", "ready");
    up.wait_for_text("the mesh runs as revision 2 says");
    done.store(true, Ordering::Relaxed);
    let (good, bad) = clients.join().unwrap();
    assert!(good > 0 && bad.is_empty(), "{good} good; {bad:?}");
    let after = [pid(folder.path(), "back-0"), pid(folder.path(), "back-1")];
    assert!(before[0] != after[0] && before[1] != after[1]);
}

#[test]
fn a_file_with_mistakes_changes_nothing_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("gateway-public", "ready");
    up.edit(&mesh(", instancs: 2"));
    let text = up.wait_for_text("has mistakes; nothing changes");
    assert!(text.contains("did you mean `instances`?") && text.contains("mesh.yaml:4:"), "{text}");
    up.edit(&mesh("").replace("mesh: tests", "mesh: other"));
    up.wait_for_text("a mesh keeps its name while it runs; nothing changes");
    assert_eq!(revision(folder.path()), 1);
    // A gateway that cannot be given its program stays; so does everybody else.
    up.edit(&mesh("").replace(&application::command(), "no-such-program"));
    up.wait_for_text("`back-0` stays as it is: there is no program `no-such-program`");
    assert_eq!(get(gateway(folder.path()), "/call/back").unwrap().0, "HTTP/1.1 200 OK");
    assert_eq!(instance(folder.path(), "back-0")["starts"], 1);
}

#[test]
fn what_does_not_come_up_is_not_rolled_out_further_and_a_mended_file_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(", instances: 2"));
    up.wait_for("gateway-public", "ready");
    up.edit(&mesh(", instances: 2, env: {FAIL: '1'}"));
    let text = up.wait_for_text("its like stay as they are until it is well");
    assert!(text.contains("`back-0` did not come up: it ended with exit code 3"), "{text}");
    assert!(text.contains("the cupboard is bare"), "{text}");
    for _ in 0..10 {
        assert_eq!(get(gateway(folder.path()), "/call/back").unwrap().0, "HTTP/1.1 200 OK");
    }
    assert_eq!(instance(folder.path(), "back-1")["starts"], 1);
    up.edit(&mesh(", instances: 2"));
    up.wait_for("back-0", "ready");
    up.wait_for_text("the mesh runs as revision 3 says");
    assert_eq!(instance(folder.path(), "back-1")["starts"], 1);
}

#[test]
fn a_revision_from_elsewhere_is_followed_and_taken_back() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("gateway-public", "ready");
    let file = other.path().join("mesh.yaml");
    std::fs::write(&file, mesh(", instances: 2")).unwrap();
    let file = file.to_str().unwrap();
    let (code, text) = ask(folder.path(), &["diff", file]);
    assert_eq!((code, text.as_str()), (Some(1), "changes of revision 1:\n  ~ services.back.instances: 1 → 2\n"));
    let (code, text) = ask(folder.path(), &["apply", file]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("revision 2 is in force") && text.contains("roles run on it"), "{text}");
    up.wait_for("back-1", "ready");
    let (code, text) = ask(folder.path(), &["apply", file, "--format", "json"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &document["revision"], &document["changes"]), (Some(0), &2.into(), &Value::Array(Vec::new())));
    let (code, text) = ask(folder.path(), &["rollback"]);
    assert!(code == Some(0) && text.contains("services.back.instances: 2 → 1"), "{text}");
    up.wait_for("back-1", "stopped");
    let (code, text) = ask(folder.path(), &["history"]);
    assert!(code == Some(0) && text.contains("rollback to 1") && text.contains("the mesh file at the start"), "{text}");
    let (code, text) = ask(folder.path(), &["rollback", "77"]);
    assert!(code == Some(1) && text.contains("revision 77 is not kept"), "{text}");
    std::fs::write(file, mesh(", instancs: 2")).unwrap();
    let (code, text) = ask(folder.path(), &["apply", file]);
    assert!(code == Some(1) && text.contains("did you mean `instances`?"), "{text}");
    assert_eq!(revision(folder.path()), 3);
}

#[test]
fn a_restart_undoes_nothing_that_was_published_and_a_broken_file_stops_nothing() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let end = |up: Up| {
        up.signal("INT");
        let (status, stderr) = up.end();
        assert!(status.success(), "{stderr}");
    };
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("gateway-public", "ready");
    let file = other.path().join("mesh.yaml");
    std::fs::write(&file, mesh(", instances: 2")).unwrap();
    assert_eq!(ask(folder.path(), &["apply", file.to_str().unwrap()]).0, Some(0));
    up.wait_for("back-1", "ready");
    end(up);
    // The file is as it was: what was published after it stays.
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("back-1", "ready");
    up.wait_for_text("the last revision stays in force");
    assert_eq!(revision(folder.path()), 2);
    end(up);
    let up = Up::start(folder.path(), &mesh(", instancs: 2"));
    up.wait_for("back-1", "ready");
    up.wait_for("gateway-public", "ready");
    assert_eq!(revision(folder.path()), 2);
    end(up);
    // It was changed meanwhile.
    let up = Up::start(folder.path(), &mesh(", instances: 3"));
    up.wait_for_text("the mesh file is applied: revision 3 is in force");
    up.wait_for("back-2", "ready");
    up.wait_for("gateway-public", "ready");
    end(up);
}

#[test]
fn a_hang_up_puts_the_file_in_force_again() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("gateway-public", "ready");
    up.edit(&mesh(", breaker: {open: 2s}"));
    up.wait_for_text("services.back.breaker.open: 1s → 2s");
    assert_eq!(ask(folder.path(), &["rollback", "--no-wait"]).0, Some(0));
    assert_eq!(revision(folder.path()), 3);
    up.signal("HUP");
    up.wait_for_text("the mesh file is applied: revision 4 is in force");
}

#[test]
fn no_mesh_no_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mesh.yaml");
    std::fs::write(&file, mesh("")).unwrap();
    for words in
        [&["apply", file.to_str().unwrap()][..], &["diff", file.to_str().unwrap()], &["history"], &["rollback"]]
    {
        let (code, text) = ask(folder.path(), words);
        assert!(code == Some(2) && text.contains("no mesh runs here"), "{words:?}: {text}");
    }
}

/// A control plane that is started by hand; it is killed with the test.
struct Plane(std::process::Child, String);

impl Plane {
    fn start(folder: &Path, file: &Path) -> Self {
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let (secret, data, ready) = (path("secret"), path("data"), path("ready"));
        let _ = std::fs::remove_file(&ready);
        let words = ["control-plane", "--file", file.to_str().unwrap(), "--token-secret", &secret, "--data", &data];
        let addresses = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ready-file", &ready];
        let child = command(&[&words[..], &addresses].concat()).spawn().unwrap();
        let admin = eventually("it is ready", || {
            let ready: Value = serde_json::from_str(&std::fs::read_to_string(&ready).ok()?).ok()?;
            ready["addresses"]["admin"].as_str().map(str::to_owned)
        });
        Self(child, admin)
    }

    fn ask(&self, words: &[&str]) -> String {
        let output = meshwork(&[words, &["--admin", &self.1]].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn end(mut self) {
        signal(self.0.id(), "TERM");
        assert!(eventually("it ends", || self.0.try_wait().unwrap()).success());
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_control_plane_starts_on_its_revisions_beside_a_broken_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mesh.yaml");
    std::fs::write(&file, mesh("")).unwrap();
    let plane = Plane::start(folder.path(), &file);
    std::fs::write(&file, mesh(", breaker: {open: 2s}")).unwrap();
    let told = plane.ask(&["apply", file.to_str().unwrap()]);
    assert!(told.contains("revision 2 is in force") && told.contains("no role is connected yet"), "{told}");
    plane.end();
    for text in [mesh(", instancs: 2"), mesh("")] {
        std::fs::write(&file, text).unwrap();
        let plane = Plane::start(folder.path(), &file);
        assert!(plane.ask(&["history", "--format", "json"]).contains(r#""current":2"#));
        plane.end();
    }
    std::fs::remove_file(&file).unwrap();
    let plane = Plane::start(folder.path(), &file);
    assert!(plane.ask(&["diff", "--revision", "1"]).contains("services.back.breaker.open: 2s → 1s"));
    plane.end();
}
