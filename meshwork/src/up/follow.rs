//! The revision in force, wherever it came from, and the processes that it asks for: they are started, replaced and stopped one at a
//! time. What is next is said by `reconcile`; here it is done, and said.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use control::Revisions;
use model::name::Name;
use storage::disk::real::RealDisk;

use super::folder::CONTROL_PLANE;
use super::mesh::Mesh;
use super::plan::{Part, Planned};
use super::ports;
use super::reconcile::{self, Now, Step};
use crate::operator::Operator;

/// From one look at the revision in force, and at what runs, to the next.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// Follows the revision in force.
pub(crate) struct Follow<'a> {
    mesh: &'a Mesh,
    operator: &'a Operator,
    /// What the control plane keeps.
    revisions: Revisions,
    /// The revision that is followed; 0 before the first look.
    revision: u64,
    wanted: Vec<Vec<Planned>>,
    /// What cannot be started as it is wanted, and why.
    refused: Vec<(Name, String)>,
    /// What could not be added; it is tried again with the next revision.
    failed: BTreeSet<Name>,
    /// Something was done for this revision.
    busy: bool,
}

impl<'a> Follow<'a> {
    /// Of a mesh that was started.
    pub(crate) fn new(mesh: &'a Mesh, operator: &'a Operator) -> Self {
        let wanted = mesh.planned();
        let control = mesh.launch().folder.root().join(CONTROL_PLANE);
        let revisions = Revisions::of(Arc::new(RealDisk), &control);
        Self {
            mesh,
            operator,
            revisions,
            revision: 0,
            wanted,
            refused: Vec::new(),
            failed: BTreeSet::new(),
            busy: false,
        }
    }

    /// Follows for ever.
    pub(crate) async fn run(mut self) {
        loop {
            self.look().await;
            match self.next().await {
                Some(step) => self.take(step).await,
                None => tokio::time::sleep(LOOK_PAUSE).await,
            }
        }
    }

    /// Takes up another revision, if there is one. While the control plane is away nothing changes.
    async fn look(&mut self) {
        let Ok(Some(revision)) = self.operator.other_than(self.revision).await else { return };
        // From the disk, which is this user's own: the admin API shows nobody what applications are given in their environment.
        let config = match self.revisions.get(revision) {
            Ok(Some(kept)) => kept.config,
            Ok(None) => return,
            Err(error) => {
                self.say(format!(
                    "revision {revision} is in force, and no process is changed: it cannot be read: {error}"
                ));
                self.revision = revision;
                return;
            }
        };
        let wanted = match self.mesh.plan(&config) {
            Ok(wanted) => wanted,
            Err(error) => {
                self.say(format!("revision {revision} is in force, and no process is changed: {error}"));
                self.revision = revision;
                return;
            }
        };
        let running: Vec<Planned> = self.mesh.planned().into_iter().flatten().collect();
        self.mesh.launch().ports.plan(&wanted.iter().flatten().chain(&running).collect::<Vec<_>>());
        let [starts, replaces, stops] = reconcile::count(&self.now(&BTreeSet::new()), &wanted);
        if starts + replaces + stops > 0 {
            self.say(format!("revision {revision}: {starts} to start, {replaces} to replace, {stops} to stop"));
        }
        (self.revision, self.wanted) = (revision, wanted);
        (self.refused, self.failed, self.busy) = (Vec::new(), BTreeSet::new(), false);
        self.mesh.arrange(&self.wanted);
    }

    async fn next(&mut self) -> Option<Step> {
        if reconcile::count(&self.now(&BTreeSet::new()), &self.wanted) == [0; 3] {
            if std::mem::take(&mut self.busy) {
                self.say(format!("the mesh runs as revision {} says", self.revision));
            }
            return None;
        }
        // Without the registry nobody knows whether callers were told of what was replaced last.
        let live = self.operator.instances().await.ok()?;
        let live = live
            .into_iter()
            .filter(|instance| instance.live && !instance.presumed)
            .map(|instance| instance.instance)
            .collect();
        let now = self.now(&live);
        self.refuse(&now);
        let refused = self.refused.iter().map(|(name, _)| name).chain(&self.failed).cloned().collect();
        reconcile::next(&now, &self.wanted, &refused)
    }

    fn now(&self, live: &BTreeSet<Name>) -> Vec<Now> {
        let instances = self.mesh.instances();
        let now = instances.iter().map(|instance| {
            let planned = instance.planned.clone();
            let told = match &planned.part {
                Part::Service(service) => service.command.is_none() || live.contains(&planned.instance),
                Part::Broker | Part::Gateway { .. } | Part::ControlPlane => true,
            };
            Now { well: told && instance.is_ready(), planned }
        });
        now.collect()
    }

    /// Finds what cannot be started before anything of it is stopped.
    fn refuse(&mut self, now: &[Now]) {
        let mut refused = Vec::new();
        for planned in self.wanted.iter().flatten() {
            let running = now.iter().map(|one| &one.planned).find(|running| running.instance == planned.instance);
            if running == Some(planned) {
                continue;
            }
            let launch = self.mesh.launch();
            let why = match launch.program(planned) {
                Err(error) => Some(error.to_string()),
                // What one of ours has is given up in time, or is the gateway's own, which moves by itself.
                Ok(_) if running.is_some() || reconcile::is_held(planned, now) => None,
                Ok(_) => ports::check([planned], None).first().map(ToString::to_string),
            };
            refused.extend(why.map(|why| (planned.instance.clone(), why)));
        }
        for (instance, why) in refused.iter().filter(|one| !self.refused.contains(one)) {
            self.say(format!("`{instance}` stays as it is: {why}"));
        }
        self.refused = refused;
    }

    async fn take(&mut self, step: Step) {
        self.busy = true;
        match step {
            Step::Start(planned) => {
                self.say(format!("`{}` is started", planned.instance));
                self.start(planned).await;
            }
            Step::Replace(planned) => {
                let alike = |other: &Planned| other.subject() == planned.subject();
                let alone = match (&planned.part, self.mesh.planned().iter().flatten().filter(|one| alike(one)).count())
                {
                    (Part::Service(_), 1) => "; it is the only instance, so its callers are refused until it is back",
                    _ => "",
                };
                self.say(format!("`{}` is replaced: it drains, and is started again{alone}", planned.instance));
                self.mesh.remove(&planned.instance).await;
                self.start(planned).await;
            }
            Step::Stop(instance) => {
                self.say(format!("`{instance}` is stopped"));
                self.mesh.remove(&instance).await;
            }
        }
    }

    async fn start(&mut self, planned: Planned) {
        let name = planned.instance.clone();
        let wave = self.wanted.iter().position(|wave| wave.iter().any(|planned| planned.instance == name));
        let instance = match self.mesh.add(planned, wave.unwrap_or_default(), false) {
            Ok(instance) => instance,
            Err(error) => {
                self.say(format!("`{name}` cannot be started: {error}"));
                self.failed.insert(name);
                return;
            }
        };
        instance.launch();
        tokio::select! {
            outcome = instance.came_up() => if let Err(error) = outcome {
                self.say(format!("{error}\nit is tried again and again; its like stay as they are until it is well"));
            },
            // What mends it may have come meanwhile.
            () = self.superseded() => {}
        }
    }

    /// Resolves when another revision is in force.
    async fn superseded(&self) {
        loop {
            tokio::time::sleep(LOOK_PAUSE).await;
            if matches!(self.operator.other_than(self.revision).await, Ok(Some(_))) {
                return;
            }
        }
    }

    fn say(&self, text: String) {
        self.mesh.launch().events.mesh(text);
    }
}
