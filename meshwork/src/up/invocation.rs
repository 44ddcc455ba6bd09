//! How a planned process is called: the command line of its role.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::name::Name;
use model::unit;

use super::folder::Folder;
use super::leftover;
use super::plan::{Part, Planned, Service};
use super::process::Invocation;

/// What all processes of a mesh have in common.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) mesh: Name,
    /// The meshwork executable.
    pub(crate) program: PathBuf,
    /// The mesh file, for the control plane.
    pub(crate) file: PathBuf,
    /// Where applications run.
    pub(crate) folder: PathBuf,
    pub(crate) log_level: String,
    pub(crate) access_log: bool,
    /// Lanes of each role that carries traffic.
    pub(crate) lanes: u16,
    /// From SIGTERM to SIGKILL.
    pub(crate) stop: Duration,
    /// How long certificates hold.
    pub(crate) certificate_life: Duration,
}

/// What is known of one process only when it is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Particular {
    /// Where the control plane is.
    pub(crate) control: Option<SocketAddr>,
    /// Where the control plane's admin API is.
    pub(crate) admin: Option<SocketAddr>,
    /// Where a gateway listens instead.
    pub(crate) listen: Option<SocketAddr>,
    /// Where an application reaches its sidecar, and whoever asks a role how it is.
    pub(crate) outbound: Option<SocketAddr>,
    /// Where the mesh reaches it.
    pub(crate) inbound: Option<SocketAddr>,
    /// Where an application listens.
    pub(crate) port: Option<u16>,
    /// The file of an application's program.
    pub(crate) application: Option<PathBuf>,
}

/// The command line of `planned`.
pub(crate) fn invocation(common: &Common, folder: &Folder, planned: &Planned, particular: &Particular) -> Invocation {
    let mut line = Line::default();
    match &planned.part {
        Part::ControlPlane => control_plane(&mut line, common, folder, particular),
        Part::Broker => line.word("broker"),
        Part::Gateway { name, .. } => {
            line.word("gateway");
            line.pair("--gateway", name.as_str());
            line.maybe("--listen", particular.listen);
        }
        Part::Service(service) => sidecar(&mut line, service, particular),
    }
    line.pair("--instance", planned.instance.as_str());
    line.pair("--data", folder.of(&planned.instance));
    line.pair("--ready-file", folder.ready_file(&planned.instance));
    line.pair("--log-level", &common.log_level);
    if planned.part != Part::ControlPlane {
        let own = if matches!(planned.part, Part::Service(_)) { "--outbound" } else { "--status" };
        line.maybe(own, particular.outbound);
        line.maybe("--inbound", particular.inbound);
        member(&mut line, common, folder, planned, particular);
    }
    let mut env = std::collections::BTreeMap::new();
    if let Part::Service(service) = &planned.part {
        env.clone_from(&service.env);
        application(&mut line, service, particular);
    }
    env.insert(leftover::MARK.to_owned(), folder.root().to_string_lossy().into_owned());
    env.insert(leftover::MARK_INSTANCE.to_owned(), planned.instance.to_string());
    Invocation { program: common.program.clone(), arguments: line.0, env, folder: common.folder.clone() }
}

fn control_plane(line: &mut Line, common: &Common, folder: &Folder, particular: &Particular) {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    line.word("control-plane");
    line.pair("--file", &common.file);
    line.pair("--listen", particular.control.unwrap_or(free).to_string());
    line.pair("--admin", particular.admin.unwrap_or(free).to_string());
    line.pair("--token-secret", folder.secret_file());
    line.pair("--certificate-life", unit::write_duration(common.certificate_life));
}

fn sidecar(line: &mut Line, service: &Service, particular: &Particular) {
    line.word("sidecar");
    line.pair("--service", service.name.as_str());
    line.maybe("--subset", service.subset.as_ref());
    line.maybe("--application-port", particular.port);
    line.maybe("--health-path", service.health.path.as_ref());
    line.pair("--health-interval", unit::write_duration(service.health.interval));
    line.pair("--health-timeout", unit::write_duration(service.health.timeout));
}

fn member(line: &mut Line, common: &Common, folder: &Folder, planned: &Planned, particular: &Particular) {
    line.pair("--mesh", common.mesh.as_str());
    line.maybe("--control", particular.control);
    line.pair("--roots", folder.roots_file());
    line.pair("--token-file", folder.token_file(&planned.instance));
    line.pair("--lanes", common.lanes.to_string());
    line.pair("--stop-timeout", unit::write_duration(common.stop));
    line.pair("--access-log", if common.access_log { "on" } else { "off" });
}

fn application(line: &mut Line, service: &Service, particular: &Particular) {
    let Some((word, arguments)) = service.command.as_deref().and_then(<[String]>::split_first) else { return };
    line.word("--");
    line.word(particular.application.as_deref().unwrap_or(Path::new(word)));
    arguments.iter().for_each(|argument| line.word(argument));
}

#[derive(Default)]
struct Line(Vec<OsString>);

impl Line {
    fn word(&mut self, word: impl Into<OsString>) {
        self.0.push(word.into());
    }

    fn pair(&mut self, flag: &str, value: impl Into<OsString>) {
        self.word(flag);
        self.word(value);
    }

    fn maybe(&mut self, flag: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.pair(flag, value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::plan;

    const MESH: &str = "
mesh: shop
services:
  payments:
    protocol: http
    health: {path: /healthz}
    subsets: {v1: {command: shop payments --version 1, env: {A: b}}}
gateways: {public: {listen: 127.0.0.1:8080, backends: [{service: payments}]}}
";

    /// The command line of the instance in words.
    fn line_of(instance: &str) -> String {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::take(root.path()).unwrap();
        let common = Common {
            mesh: Name::new("shop").unwrap(),
            program: PathBuf::from("meshwork"),
            file: PathBuf::from("mesh.yaml"),
            folder: PathBuf::from("/"),
            log_level: "warn".to_owned(),
            access_log: false,
            lanes: 1,
            stop: Duration::from_secs(30),
            certificate_life: Duration::from_secs(3_600),
        };
        let particular = Particular {
            control: Some(SocketAddr::from(([127, 0, 0, 1], 15_010))),
            outbound: Some(SocketAddr::from(([127, 0, 0, 1], 20_001))),
            inbound: Some(SocketAddr::from(([127, 0, 0, 1], 20_002))),
            port: Some(8_104),
            application: Some(PathBuf::from("/bin/shop")),
            ..Particular::default()
        };
        let config = model::config::check("mesh.yaml", MESH).unwrap().config;
        let waves = plan::waves(&config).unwrap();
        let planned = waves.iter().flatten().find(|planned| planned.instance.as_str() == instance).unwrap();
        let words: Vec<String> = invocation(&common, &folder, planned, &particular)
            .arguments
            .iter()
            .map(|word| word.to_string_lossy().replace(&*root.path().to_string_lossy(), "DIR"))
            .collect();
        words.join(" ")
    }

    #[test]
    fn a_sidecar_is_told_all_that_its_role_asks_for() {
        assert_eq!(
            line_of("payments-v1-0"),
            "sidecar --service payments --subset v1 --application-port 8104 --health-path /healthz --health-interval 1s \
             --health-timeout 1s --instance payments-v1-0 --data DIR/payments-v1-0 --ready-file DIR/run/payments-v1-0.ready \
             --log-level warn --outbound 127.0.0.1:20001 --inbound 127.0.0.1:20002 --mesh shop --control 127.0.0.1:15010 --roots DIR/control-plane/roots.pem \
             --token-file DIR/run/payments-v1-0.token --lanes 1 --stop-timeout 30s --access-log off -- /bin/shop payments --version 1"
        );
    }

    #[test]
    fn a_control_plane_comes_back_where_it_was() {
        let line = line_of("control-plane");
        assert!(
            line.starts_with("control-plane --file mesh.yaml --listen 127.0.0.1:15010 --admin 127.0.0.1:0"),
            "{line}"
        );
        assert!(!line.contains("--control "), "{line}");
    }
}
