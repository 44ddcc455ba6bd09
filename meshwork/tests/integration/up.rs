//! `meshwork up`: whole meshes of processes, from their start to their end.

use std::net::TcpListener;

use crate::application::{self, mesh};
use crate::outside::Outside;
use crate::process::{Up, all_gone, eventually, family, gateway, get, instance, signal, wall_s};

#[test]
fn a_mesh_carries_requests_and_leaves_no_process_behind() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(", instances: 2, env: {CHILD: '1'}"));
    up.wait_for("gateway-public", "ready");
    let (status, body) = get(gateway(folder.path()), "/call/back").unwrap();
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.starts_with("process "), "{body}");
    let all = family(up.pid());
    // Itself, the control plane, the gateway, three sidecars, three applications, two children of applications.
    assert!(all.len() >= 11, "{all:?}");
    up.signal("INT");
    let (status, stderr) = up.end();
    assert!(status.success(), "{status}: {stderr}");
    all_gone(&all);
}

#[test]
fn what_ends_by_itself_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("gateway-public", "ready");
    let address = gateway(folder.path());
    let (_, before) = get(address, "/call/back").unwrap();
    let sidecar = instance(folder.path(), "back-0")["pid"].as_u64().unwrap();
    signal(u32::try_from(sidecar).unwrap(), "KILL");
    up.wait_for("back-0", "restarting");
    up.wait_for("back-0", "ready");
    let after = eventually("the new instance answers", || {
        get(address, "/call/back").map(|(_, body)| body).filter(|body| body.starts_with("process ") && *body != before)
    });
    assert_ne!(before, after);
}

#[test]
fn a_second_run_does_not_send_requests_where_the_first_one_was() {
    let folder = tempfile::tempdir().unwrap();
    for run in 1..=2 {
        let up = Up::start(folder.path(), &mesh(""));
        up.wait_for("gateway-public", "ready");
        // The first request counts: a client knows no better than that the gateway is ready.
        let (status, _) = get(gateway(folder.path()), "/call/back").unwrap();
        assert_eq!(status, "HTTP/1.1 200 OK", "run {run}");
        up.signal("INT");
        assert!(up.end().0.success());
    }
}

#[test]
fn a_gateway_that_starts_without_a_control_plane_works_on_what_it_kept() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("gateway-public", "ready");
    let pid = |name| u32::try_from(instance(folder.path(), name)["pid"].as_u64().unwrap()).unwrap();
    // It takes connections and answers nothing, as a host behind a broken link.
    signal(pid("control-plane"), "STOP");
    signal(pid("gateway-public"), "KILL");
    up.wait_for("gateway-public", "ready");
    assert_eq!(get(gateway(folder.path()), "/call/back").unwrap().0, "HTTP/1.1 200 OK");
    signal(pid("control-plane"), "CONT");
    up.signal("INT");
    assert!(up.end().0.success());
}

/// A machine that was suspended for longer than certificates hold. Their life stands to the grace as it does by default.
#[test]
fn a_mesh_that_slept_for_longer_than_its_certificates_hold_wakes_up() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start_in(folder.path(), &mesh(""), &[], &[("MESHWORK_CERTIFICATE_LIFE", "6s")]);
    up.wait_for("gateway-public", "ready");
    let address = gateway(folder.path());
    assert_eq!(get(address, "/call/back").unwrap().0, "HTTP/1.1 200 OK");
    let roles = ["control-plane", "front-0", "back-0", "gateway-public"];
    let pids = roles.map(|name| u32::try_from(instance(folder.path(), name)["pid"].as_u64().unwrap()).unwrap());
    pids.iter().for_each(|pid| signal(*pid, "STOP"));
    let woken_s = wall_s() + 8;
    eventually("the certificates have ended", || (wall_s() > woken_s).then_some(()));
    // One that does not answer is not ready, whatever its ready file says.
    let asleep = instance(folder.path(), "back-0");
    assert_eq!(asleep["state"], "suspended", "{asleep}");
    assert!(asleep["failure"].as_str().unwrap().contains("SIGSTOP"), "{asleep}");
    pids.iter().for_each(|pid| signal(*pid, "CONT"));
    eventually("every role is well", || {
        roles.iter().all(|name| instance(folder.path(), name)["state"] == "ready").then_some(())
    });
    eventually("requests get through", || get(address, "/call/back").filter(|(status, _)| status == "HTTP/1.1 200 OK"));
    // With certificates of after: those of before, and their sessions, have ended.
    for name in ["front-0", "gateway-public"] {
        let addresses = instance(folder.path(), name)["addresses"].clone();
        let own = addresses.get("status").or(addresses.get("outbound")).unwrap().as_str().unwrap().parse().unwrap();
        let (_, status) = crate::process::get_as(own, "sidecar", "/v1/status").unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert!(status["certificate_not_after_s"].as_u64().unwrap() > woken_s, "{status}");
    }
    up.signal("INT");
    assert!(up.end().0.success());
}

/// A role that can renew no more says so, and `status` with it.
#[test]
fn a_role_whose_certificate_has_ended_is_not_shown_as_ready() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start_in(folder.path(), &mesh(""), &[], &[("MESHWORK_CERTIFICATE_LIFE", "6s")]);
    up.wait_for("gateway-public", "ready");
    let control = u32::try_from(instance(folder.path(), "control-plane")["pid"].as_u64().unwrap()).unwrap();
    signal(control, "STOP");
    let failing = eventually("the sidecar is failing", || {
        Some(instance(folder.path(), "back-0")).filter(|back| back["state"] == "failing")
    });
    assert!(failing["failure"].as_str().unwrap().contains("the certificate ended "), "{failing}");
    signal(control, "CONT");
    eventually("it is well again", || {
        Some(instance(folder.path(), "back-0")).filter(|back| back["state"] == "ready" && back["failure"].is_null())
    });
    up.signal("INT");
    assert!(up.end().0.success());
}

/// What is in the folder is the mesh's settings, keys and messages.
#[test]
fn what_a_mesh_keeps_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let up =
        Up::start_with(folder.path(), &mesh(", env: {PASSWORD: open-sesame}"), &["--data", data.to_str().unwrap()]);
    up.wait_for("gateway-public", "ready");
    let mut folders = vec![data];
    let mut files = 0;
    while let Some(one) = folders.pop() {
        assert_eq!(std::fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o700, "{one:?}");
        for entry in std::fs::read_dir(&one).unwrap().flatten().map(|entry| entry.path()) {
            // One that is replaced in this moment is gone.
            let Ok(found) = std::fs::metadata(&entry) else { continue };
            if found.is_dir() {
                folders.push(entry);
                continue;
            }
            files += 1;
            assert_eq!(found.permissions().mode() & 0o777, 0o600, "{entry:?}");
        }
    }
    assert!(files >= 10, "{files}");
}

#[test]
fn roots_beside_the_mesh_file_reach_the_gateway_that_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    let outside = Outside::start("tax.example.com");
    std::fs::create_dir(folder.path().join("trusted")).unwrap();
    std::fs::write(folder.path().join("trusted/tax.pem"), &outside.roots_pem).unwrap();
    let text = format!(
        "mesh: tests\n\
         services:\n  \
           tax: {{external: {{addresses: ['{}'], tls: {{name: tax.example.com, roots: trusted/tax.pem}}}}}}\n\
         gateways:\n  \
           public: {{listen: '127.0.0.1:0', backends: [{{service: tax}}]}}\n",
        outside.address
    );
    let up = Up::start(folder.path(), &text);
    up.wait_for("gateway-public", "ready");
    let (status, body) = get(gateway(folder.path()), "/").unwrap();
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", "from outside"));
}

#[test]
fn an_application_that_does_not_come_up_is_named_with_its_last_lines() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(", env: {FAIL: '1'}"));
    up.wait_for("control-plane", "ready");
    let all = family(up.pid());
    let (status, stderr) = up.end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("`back-0` did not come up: it ended with exit code 3"), "{stderr}");
    assert!(stderr.contains("the cupboard is bare"), "{stderr}");
    assert!(stderr.contains("/ must answer 2xx; the port is told in PORT"), "{stderr}");
    all_gone(&all);
}

#[test]
fn an_instance_that_fails_is_named_while_others_are_still_coming_up() {
    let folder = tempfile::tempdir().unwrap();
    let slow = "  slow: {protocol: http, command: 'sleep 600', health: {path: /}}\ngateways:";
    let text = mesh(", env: {FAIL: '1'}").replace("gateways:", slow);
    // Longer than the test waits.
    let (status, stderr) = Up::start_with(folder.path(), &text, &["--start-timeout", "10m"]).end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("`back-0` did not come up: it ended with exit code 3"), "{stderr}");
}

#[test]
fn a_port_in_use_is_named_with_the_setting_that_moves_it() {
    let folder = tempfile::tempdir().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let (status, stderr) = Up::start(folder.path(), &mesh(&format!(", port: {port}"))).end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains(&format!("127.0.0.1:{port} is in use")), "{stderr}");
    assert!(stderr.contains("move it with `services.back.port` in the mesh file"), "{stderr}");
}

#[test]
fn a_program_that_is_not_there_is_named_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let text = "mesh: tests\nservices: {a: {protocol: http, command: no-such-program --now}}\n";
    let (status, stderr) = Up::start(folder.path(), text).end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("`a-0` cannot be started: there is no program `no-such-program`"), "{stderr}");
}

#[test]
fn a_mesh_file_with_mistakes_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = "mesh: tests\nservices: {a: {protocol: http, cals: [b], calls: [b]}}\n";
    let (status, stderr) = Up::start(folder.path(), text).end();
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr.contains("cals") && stderr.contains("did you mean `calls`?") && stderr.contains("2 errors"),
        "{stderr}"
    );
    assert!(!folder.path().join("run").exists());
}

#[test]
fn two_meshes_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = Up::start(folder.path(), &mesh(""));
    first.wait_for("gateway-public", "ready");
    let port = format!(", port: {}", gateway(folder.path()).port());
    let (status, stderr) = Up::start(folder.path(), &mesh(&port)).end();
    assert_eq!(status.code(), Some(1));
    // It is the other run that is in the way, whatever ports it has.
    let holder = format!("is in use by process {}", first.pid());
    assert!(stderr.contains(&holder) && stderr.contains("--data") && !stderr.contains("services.back"), "{stderr}");
}

#[test]
fn up_that_is_killed_leaves_no_process_behind() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(""));
    up.wait_for("gateway-public", "ready");
    let all = family(up.pid());
    up.signal("KILL");
    let (status, _) = up.end();
    assert!(!status.success());
    all_gone(&all);
}

#[test]
fn what_a_killed_run_left_behind_ends_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &mesh(", env: {CHILD: '1'}"));
    up.wait_for("gateway-public", "ready");
    let all = family(up.pid());
    up.signal("KILL");
    assert!(!up.end().0.success());
    let next = Up::start(folder.path(), &mesh(""));
    next.wait_for("control-plane", "ready");
    all_gone(&all);
}

#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let command = application::command();
    // An application that does not listen when it is asked to end.
    let stubborn = format!("sh -c \"trap '' TERM; exec {command}\"");
    let text = mesh("").replacen(&format!("'{command}'"), &serde_json::to_string(&stubborn).unwrap(), 1);
    let up = Up::start(folder.path(), &text);
    up.wait_for("gateway-public", "ready");
    let all = family(up.pid());
    up.signal("INT");
    up.wait_for("front-0", "stopping");
    up.signal("INT");
    let (status, _) = up.end();
    assert_eq!(status.code(), Some(130));
    all_gone(&all);
}
