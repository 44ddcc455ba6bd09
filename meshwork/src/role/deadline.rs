//! How long a role may take to end, and how the steps of its end share that.
//!
//! Whoever runs a role kills it some time after SIGTERM: `up` after its `--stop-timeout`, Kubernetes after
//! `terminationGracePeriodSeconds`. Bounds that each step has of its own add up to more than that, and what is killed loses what the order
//! of the steps was to save. So there is one deadline, and each step is over by a part of the way to it. What a step leaves goes to
//! those after it, never the other way.

use std::time::Duration;

use tokio::time::Instant;

/// From SIGTERM to SIGKILL where nobody says how long, as on a command line; Kubernetes gives the same.
pub const TIMEOUT: &str = "30s";
/// The deadline is that many parts away: of [`TIMEOUT`], one is a second.
const PARTS: u32 = 30;

/// The steps of an end, in their order. A role leaves out those that it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Callers learn that the instance goes; until then it serves them.
    Withdraw,
    /// What is in progress from the mesh or from outside is finished.
    Inbound,
    /// The application ends.
    Application,
    /// What it still has in progress to others is finished.
    Outbound,
    /// All else that runs in the role ends: a broker's deliveries, the session.
    Rest,
}

impl Step {
    /// Of [`PARTS`]; the last one is left to the process, to exit in.
    fn over_by(self) -> u32 {
        match self {
            Self::Withdraw => 2,
            Self::Inbound => 13,
            Self::Application => 23,
            Self::Outbound => 26,
            Self::Rest => 29,
        }
    }
}

/// When a role that has been asked to end is killed.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    asked: Instant,
    timeout: Duration,
}

impl Deadline {
    /// Of a role that is asked to end now, and is killed `timeout` later.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        Self { asked: Instant::now(), timeout }
    }

    /// How long `step` may take from now on.
    #[must_use]
    pub fn left_for(&self, step: Step) -> Duration {
        (self.timeout * step.over_by() / PARTS).saturating_sub(self.asked.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 5] = [Step::Withdraw, Step::Inbound, Step::Application, Step::Outbound, Step::Rest];

    #[tokio::test(start_paused = true)]
    async fn steps_that_take_all_they_may_are_over_before_the_deadline() {
        let begun = Instant::now();
        let timeout = model::unit::duration(TIMEOUT).unwrap();
        let deadline = Deadline::after(timeout);
        let mut shares = Vec::new();
        for step in STEPS {
            let left = deadline.left_for(step);
            shares.push(left.as_secs());
            tokio::time::sleep(left).await;
        }
        assert_eq!(shares, [2, 11, 10, 3, 3]);
        assert!(begun.elapsed() < timeout, "the process has time to exit");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_step_leaves_is_for_those_after_it() {
        let deadline = Deadline::after(Duration::from_secs(30));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let left: Vec<_> = STEPS.iter().map(|step| deadline.left_for(*step).as_secs()).collect();
        assert_eq!(left, [1, 12, 22, 25, 28]);
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert!(STEPS.iter().all(|step| deadline.left_for(*step).is_zero()));
    }
}
