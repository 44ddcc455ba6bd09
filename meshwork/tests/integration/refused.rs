//! A role that can never succeed says why, in the words of who refuses it, and ends.

use std::path::Path;

use control::token::{self, Secret};
use serde_json::Value;

use crate::process::{Up, instance, meshwork, status};

const MESH: &str = "mesh: tests\nservices: {a: {protocol: http}}\ngateways: {public: {listen: '127.0.0.1:0', backends: [{service: a}]}}\n";

/// A role that is started by hand beside a mesh that runs.
struct ByHand<'a> {
    mesh: &'a str,
    roots: &'a str,
    secret: &'a Secret,
    service: &'a str,
    instance: &'a str,
}

impl ByHand<'_> {
    /// Runs it to its end; gives its exit code and what it said.
    fn run(&self, control: &str) -> (Option<i32>, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let subject = format!("service/{}", self.service).parse().unwrap();
        let expires_s = runtime::clock::wall_s() + 600;
        let token = token::mint(self.secret, &subject, &model::name::Name::new(self.instance).unwrap(), expires_s);
        let (roots, token) = (file("roots.pem", self.roots), file("token", &token));
        let data = folder.path().join("data");
        let output = meshwork(&[
            "sidecar",
            "--mesh",
            self.mesh,
            "--control",
            control,
            "--roots",
            &roots,
            "--token-file",
            &token,
            "--instance",
            self.instance,
            "--service",
            self.service,
            "--data",
            data.to_str().unwrap(),
        ]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

fn read(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap()
}

#[test]
fn a_role_that_is_refused_ends_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), MESH);
    up.wait_for("gateway-public", "ready");
    let control = instance(folder.path(), "control-plane")["addresses"]["control"].as_str().unwrap().to_owned();
    let secret = crate::process::secret(&folder.path().join("secret"));
    let roots = read(folder.path(), "control-plane/roots.pem");
    let strangers = rcgen::generate_simple_self_signed(vec!["t".to_owned()]).unwrap().cert.pem();
    let right = ByHand { mesh: "tests", roots: &roots, secret: &secret, service: "a", instance: "a-7" };
    let others = Secret::generate().unwrap();
    let cases = [
        (ByHand { secret: &others, ..right }, "the token was not made by this mesh"),
        (
            ByHand { roots: &strangers, ..right },
            "is not proven to be this mesh's control plane by the roots given here",
        ),
        (ByHand { mesh: "other", ..right }, "is not proven to be this mesh's control plane"),
        (ByHand { service: "b", instance: "b-0", ..right }, "declares no service/b"),
        (ByHand { instance: "c-0", ..right }, "c-0 is not a name for an instance of service/a"),
    ];
    for (role, why) in cases {
        let (code, said) = role.run(&control);
        assert_eq!(code, Some(2), "{why}: {said}");
        assert!(said.contains(why), "{why}: {said}");
    }
    assert_eq!(status(folder.path())["mesh"], Value::from("tests"));
}
