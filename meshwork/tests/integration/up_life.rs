//! `meshwork up` when something goes wrong while it runs: nobody reads, an instance ends again and again, the control plane is away.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::application;
use crate::process::{
    BOUND, Up, all_gone, command, eventually, family, gateway, get, instance, meshwork, output, signal,
};

/// `front` calls `back`; a gateway lets clients in to `front`. `env` is `back`'s.
fn mesh(env: &str) -> String {
    application::mesh(&format!(", env: {{{env}}}"))
}

fn pid(folder: &Path, name: &str) -> u32 {
    u32::try_from(instance(folder, name)["pid"].as_u64().unwrap()).unwrap()
}

fn is_answered(address: SocketAddr, path: &str) -> bool {
    get(address, path).is_some_and(|(status, _)| status == "HTTP/1.1 200 OK")
}

/// What `status` says, with its exit code.
fn status(folder: &Path) -> (Option<i32>, Value) {
    let output = meshwork(&["status", "--format", "json", "--data", folder.to_str().unwrap()]);
    (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap()[0].take())
}

/// Waits until `status` says that an instance is in the state, for a reason in which `why` stands; nothing is ready then.
fn until_status_says(folder: &Path, name: &str, state: &str, why: &str) {
    eventually(&format!("{name} is {state}: {why}"), || {
        let found = instance(folder, name);
        let said = found["failure"].as_str().unwrap_or_default().contains(why);
        (found["state"] == state && said).then_some(())
    });
    let (code, all) = status(folder);
    assert_eq!((code, &all["ready"]), (Some(1), &Value::Bool(false)), "{all}");
}

fn until_all_is_ready(folder: &Path) {
    eventually("all is ready", || (status(folder).0 == Some(0)).then_some(()));
}

/// `up` whose output goes into pipes that nobody reads.
fn unread(folder: &Path, text: &str, flags: &[&str]) -> Child {
    let file = folder.join("mesh.yaml");
    std::fs::write(&file, text).unwrap();
    let arguments = ["up", file.to_str().unwrap(), "--data", folder.to_str().unwrap(), "--log-level", "debug"];
    command(&arguments).args(flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn output_that_nobody_reads_holds_up_neither_requests_nor_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = unread(folder.path(), &mesh("LOUD: '1'"), &[]);
    let address = gateway(folder.path());
    let back: SocketAddr =
        instance(folder.path(), "back-0")["addresses"]["application"].as_str().unwrap().parse().unwrap();
    eventually("it has been loud", || is_answered(back, "/loud").then_some(()));
    // The application has written more than all queues and pipes on the way hold, and still answers.
    assert!(is_answered(address, "/call/back"));
    signal(pid(folder.path(), "back-0"), "KILL");
    eventually("it comes back", || (instance(folder.path(), "back-0")["restarts"] == 1).then_some(()));
    let all = family(up.id());
    signal(up.id(), "TERM");
    let code = eventually("`up` ends", || up.try_wait().unwrap());
    assert!(code.code() == Some(0) || code.code() == Some(1), "{code}");
    all_gone(&all);
}

#[test]
fn an_instance_that_restarts_while_the_control_plane_is_away_is_found_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("gateway-public", "ready");
    let address = gateway(folder.path());
    let before = instance(folder.path(), "back-0")["addresses"].clone();
    let (_, answered) = get(address, "/call/back").unwrap();
    let control_plane = pid(folder.path(), "control-plane");
    signal(control_plane, "STOP");
    signal(pid(folder.path(), "back-0"), "KILL");
    up.wait_for("back-0", "ready");
    let after = eventually("the new one answers", || {
        get(address, "/call/back")
            .map(|(_, body)| body)
            .filter(|body| body.starts_with("process ") && *body != answered)
    });
    assert_ne!(after, answered);
    signal(control_plane, "CONT");
    assert_eq!(instance(folder.path(), "back-0")["addresses"], before);
    up.signal("INT");
    assert!(up.end().0.success());
    // The next run has them too, the gateway's among them.
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("gateway-public", "ready");
    assert_eq!(instance(folder.path(), "back-0")["addresses"], before);
    assert_eq!(gateway(folder.path()), address);
}

#[test]
fn an_instance_that_ends_again_and_again_is_tried_for_ever_and_the_exit_code_tells() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    let up = Up::start(folder.path(), &mesh(&format!("FAIL_WHILE: '{}'", broken.display())));
    up.wait_for("gateway-public", "ready");
    std::fs::write(&broken, "").unwrap();
    signal(pid(folder.path(), "back-0"), "KILL");
    for _ in 0..4 {
        up.wait_for("back-0", "restarting");
    }
    until_status_says(folder.path(), "back-0", "restarting", "it ended with exit code 3; the next start is in");
    assert!(instance(folder.path(), "back-0")["restarts"].as_u64() >= Some(3));
    std::fs::remove_file(&broken).unwrap();
    up.wait_for("back-0", "ready");
    until_all_is_ready(folder.path());
    std::fs::write(&broken, "").unwrap();
    signal(pid(folder.path(), "back-0"), "KILL");
    for _ in 0..2 {
        up.wait_for("back-0", "restarting");
    }
    up.signal("TERM");
    let (status, stderr) = up.end();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("`back-0` did not run when the mesh was told to end: it ended with exit code 3"),
        "{stderr}"
    );
}

#[test]
fn status_says_ready_only_of_what_answers() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("gateway-public", "ready");
    until_all_is_ready(folder.path());
    let sidecar = pid(folder.path(), "back-0");
    signal(sidecar, "STOP");
    until_status_says(folder.path(), "back-0", "suspended", "SIGSTOP");
    signal(sidecar, "CONT");
    until_all_is_ready(folder.path());
    // The application refuses: it is told by itself and to whoever asks, the sidecar stands.
    let application = *family(sidecar).last().unwrap();
    signal(application, "STOP");
    until_status_says(folder.path(), "back-0", "failing", "its application does not answer that it is well");
    signal(application, "CONT");
    until_all_is_ready(folder.path());
    signal(pid(folder.path(), "control-plane"), "STOP");
    until_status_says(folder.path(), "control-plane", "suspended", "");
    assert_eq!(instance(folder.path(), "back-0")["state"], "ready");
}

#[test]
fn a_hang_up_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("gateway-public", "ready");
    let address = gateway(folder.path());
    // Some looks at the file, in which nothing has changed.
    assert_eq!(up.said_within(Duration::from_secs(2)), Vec::<String>::new());
    up.signal("HUP");
    up.wait_for_text("the mesh file was read: nothing differs from revision 1");
    signal(pid(folder.path(), "front-0"), "HUP");
    signal(pid(folder.path(), "back-0"), "KILL");
    up.wait_for("back-0", "ready");
    assert!(eventually("it is answered", || is_answered(address, "/call/back").then_some(true)));
    assert_eq!(instance(folder.path(), "front-0")["starts"], 1);
    up.signal("TERM");
    let (status, stderr) = up.end();
    assert!(status.success(), "{status}: {stderr}");
}

#[test]
fn an_application_that_goes_into_the_background_does_not_keep_the_next_one_from_its_port() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh("BACKGROUND: '1'"));
    up.wait_for("gateway-public", "ready");
    let address = instance(folder.path(), "back-0")["addresses"]["application"].clone();
    let server = application::server_pid(address.as_str().unwrap().parse().unwrap());
    signal(pid(folder.path(), "back-0"), "KILL");
    up.wait_for("back-0", "ready");
    all_gone(&[server]);
    assert_eq!(instance(folder.path(), "back-0")["addresses"]["application"], address);
    up.signal("INT");
    assert!(up.end().0.success());
}

#[test]
fn an_applications_own_machine_is_reached_directly_and_its_services_through_the_mesh() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh("").replace("env: {}", "env: {NO_PROXY: 'a.example'}"));
    up.wait_for("gateway-public", "ready");
    let back: SocketAddr =
        instance(folder.path(), "back-0")["addresses"]["application"].as_str().unwrap().parse().unwrap();
    assert_eq!(get(back, "/env/NO_PROXY").unwrap().1, "a.example,localhost,127.0.0.1,::1");
    assert_eq!(get(back, "/env/no_proxy").unwrap().1, "a.example,localhost,127.0.0.1,::1");
    assert!(is_answered(gateway(folder.path()), "/call/back"));
    // And a sidecar is asked at its address, without a proxy setting.
    let sidecar =
        instance(folder.path(), "back-0")["status"].as_str().unwrap().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&sidecar).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {sidecar}\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("meshwork_"), "{text}");
}

#[test]
fn variables_of_the_callers_shell_are_no_settings_of_the_roles() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mesh.yaml");
    std::fs::write(&file, mesh("")).unwrap();
    // Each of them is a flag of some role.
    let mut up = command(&["up", file.to_str().unwrap(), "--data", folder.path().to_str().unwrap()])
        .envs([("MESHWORK_LISTEN", "127.0.0.1:1"), ("MESHWORK_ADVERTISE", "127.0.0.1:1"), ("MESHWORK_SUBSET", "v9")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address = gateway(folder.path());
    eventually("it is answered", || is_answered(address, "/call/back").then_some(()));
    signal(up.id(), "TERM");
    assert!(eventually("`up` ends", || up.try_wait().unwrap()).success());
}

#[test]
fn data_is_beside_the_mesh_file_and_what_is_new_is_said() {
    let (project, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = project.path().join("mesh.yaml");
    std::fs::write(&file, "mesh: tests\nservices: {a: {protocol: http, command: sleep 600}}\n").unwrap();
    let told = |folder: &Path| {
        let child = command(&["up", file.to_str().unwrap(), "--start-timeout", "1ms"])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        String::from_utf8(output(child, BOUND).stderr).unwrap()
    };
    let data = project.path().join(".meshwork/tests");
    let old = elsewhere.path().join(".meshwork/tests");
    std::fs::create_dir_all(&old).unwrap();
    std::fs::write(old.join("secret"), "").unwrap();
    let first = told(elsewhere.path());
    assert!(first.contains(&format!("data in {}, which is new", data.display())), "{first}");
    assert!(first.contains(&format!("an earlier version left this mesh's data in {}", old.display())), "{first}");
    let second = told(project.path());
    assert!(second.contains(&format!("data in {}\n", data.display())), "{second}");
}

#[test]
fn a_terminal_that_is_closed_ends_the_mesh_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mesh.yaml");
    std::fs::write(&file, mesh("")).unwrap();
    // script(1) gives its command a terminal, and takes it away when it is killed.
    let program = env!("CARGO_BIN_EXE_meshwork");
    let line = format!("exec {program} up {} --data {}", file.display(), folder.path().display());
    let spawned = std::process::Command::new("script")
        .args(["-qfc", &line, "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    // Not everywhere is script(1) there.
    let Ok(mut terminal) = spawned else { return };
    let address = gateway(folder.path());
    eventually("it is answered", || is_answered(address, "/call/back").then_some(()));
    let all = family(terminal.id());
    assert!(all.len() > 5, "{all:?}");
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    all_gone(&all);
    // It has ended in its order, and not been killed: nothing says any more that it runs.
    assert!(!folder.path().join("state.json").exists());
    assert!(get(address, "/").is_none());
}
