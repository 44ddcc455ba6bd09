//! The service `Queues`.

use std::sync::Arc;
use std::time::Duration;

use api::broker as wire;
use model::identity::Subject;
use model::position::Position;
use tonic::{Request, Response, Status, Streaming};

use super::stream::Receipts;
use super::{caller, missing_event, receipt};
use crate::accept::{Kind, Publisher, accept};
use crate::consume;
use crate::core::Core;
use crate::purge;
use crate::record::Group;
use crate::redrive::{self, Asked, Progress};
use crate::refusal::Refusal;
use crate::serve::problem::status;

/// The service.
pub(super) struct Queues(pub(super) Arc<Core>);

type Answer<T> = Result<Response<T>, Status>;

impl Queues {
    /// Whose dead letters are meant.
    fn group(&self, caller: &Subject, queue: &str, topic: &str, subscription: &str) -> Result<Group, Status> {
        let group = match (queue, topic) {
            (queue, "") => consume::queue(&self.0, caller, queue).map(|(group, ..)| group),
            ("", topic) => consume::subscription(&self.0, caller, topic, subscription)
                .map(|(topic, name)| Group::Subscription { topic, name }),
            _ => Err(Refusal::Invalid("either a queue or a topic with its subscription".to_owned())),
        };
        group.map_err(|refusal| status(&refusal))
    }
}

/// The dead letters that are named; `None` where none is.
fn chosen(positions: Vec<u64>) -> Option<Vec<Position>> {
    (!positions.is_empty()).then(|| positions.into_iter().map(Position).collect())
}

fn answer<T>(result: Result<T, Refusal>) -> Answer<T> {
    result.map(Response::new).map_err(|refusal| status(&refusal))
}

fn settled(result: Result<crate::verdict::Done, Refusal>) -> Answer<wire::Settled> {
    answer(result.map(|done| wire::Settled { position: done.position.0 }))
}

/// 0 stands for "not said".
fn said_ms(millis: u64) -> Option<Duration> {
    (millis > 0).then(|| Duration::from_millis(millis))
}

#[tonic::async_trait]
impl wire::queues_server::Queues for Queues {
    type SendStreamStream = Receipts<wire::SendRequest>;

    async fn send(&self, request: Request<wire::SendRequest>) -> Answer<wire::Receipt> {
        let publisher = Publisher::new(caller(&request)?);
        let wire::SendRequest { queue, event } = request.into_inner();
        let event = event.ok_or_else(missing_event);
        let message = event.and_then(|event| accept(&self.0, &publisher, Kind::Queue, &queue, event));
        let receipts = self.0.publish(vec![message.map_err(|refusal| status(&refusal))?]).await;
        answer(receipts.into_iter().next().unwrap_or(Err(Refusal::Ending)).map(receipt))
    }

    async fn send_stream(&self, request: Request<Streaming<wire::SendRequest>>) -> Answer<Self::SendStreamStream> {
        let caller = caller(&request)?;
        Ok(Response::new(Receipts::new(self.0.clone(), Publisher::new(caller), request.into_inner())))
    }

    async fn lease(&self, request: Request<wire::LeaseRequest>) -> Answer<wire::LeaseResponse> {
        let caller = caller(&request)?;
        let wire::LeaseRequest { queue, max, wait_ms, hold_ms } = request.into_inner();
        let times = (Duration::from_millis(wait_ms), said_ms(hold_ms));
        let leases = consume::lease(&self.0, &caller, &queue, max.max(1) as usize, times).await;
        answer(leases.map(|leases| {
            wire::LeaseResponse {
                leases: leases
                    .into_iter()
                    .map(|leased| wire::Leased {
                        lease: consume::lease_text(leased.lease),
                        attempt: leased.attempt,
                        position: leased.lease.position.0,
                        event: Some(leased.event),
                        expires_ms: leased.expires_ms,
                    })
                    .collect(),
            }
        }))
    }

    async fn ack(&self, request: Request<wire::AckRequest>) -> Answer<wire::Settled> {
        let caller = caller(&request)?;
        let wire::AckRequest { queue, leases } = request.into_inner();
        let leases: Result<_, Refusal> = leases.iter().map(|text| consume::read_lease(text)).collect();
        let leases = leases.map_err(|refusal| status(&refusal))?;
        settled(consume::ack(&self.0, &caller, &queue, leases).await)
    }

    async fn nack(&self, request: Request<wire::NackRequest>) -> Answer<wire::Settled> {
        let caller = caller(&request)?;
        let wire::NackRequest { queue, lease, delay_ms, reject, reason } = request.into_inner();
        let lease = consume::read_lease(&lease).map_err(|refusal| status(&refusal))?;
        let how = (delay_ms.map(Duration::from_millis), reject, reason);
        settled(consume::nack(&self.0, &caller, &queue, lease, how).await)
    }

    async fn extend(&self, request: Request<wire::ExtendRequest>) -> Answer<wire::Settled> {
        let caller = caller(&request)?;
        let wire::ExtendRequest { queue, lease, hold_ms } = request.into_inner();
        let lease = consume::read_lease(&lease).map_err(|refusal| status(&refusal))?;
        let extended = consume::extend(&self.0, &caller, &queue, lease, said_ms(hold_ms));
        answer(extended.map(|_| wire::Settled { position: lease.position.0 }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<wire::ListDeadLettersRequest>,
    ) -> Answer<wire::ListDeadLettersResponse> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let group = self.group(&caller, &asked.queue, &asked.topic, &asked.subscription)?;
        let origin = group.to_string();
        let letters = consume::dead_letters(&self.0, &group, Position(asked.after), asked.max.max(1) as usize).await;
        answer(letters.map(|letters| {
            wire::ListDeadLettersResponse {
                dead_letters: letters
                    .into_iter()
                    .map(|letter| wire::DeadLetter {
                        position: letter.position.0,
                        event: Some(letter.event),
                        reason: letter.reason,
                        attempts: letter.assigned,
                        died_ms: letter.died_ms,
                        failed: letter.failed,
                        published_ms: letter.published_ms,
                        origin: origin.clone(),
                    })
                    .collect(),
            }
        }))
    }

    async fn drop_dead_letters(
        &self,
        request: Request<wire::DropDeadLettersRequest>,
    ) -> Answer<wire::DropDeadLettersResponse> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let group = self.group(&caller, &asked.queue, &asked.topic, &asked.subscription)?;
        let chosen = match (chosen(asked.positions), asked.all) {
            (Some(chosen), false) => Some(chosen),
            (None, true) => None,
            _ => return Err(status(&Refusal::Invalid("either positions, or all".to_owned()))),
        };
        let dropped = purge::run(&self.0, &group, chosen).await;
        answer(dropped.map(|dropped| wire::DropDeadLettersResponse { dropped }))
    }

    async fn redrive(&self, request: Request<wire::RedriveRequest>) -> Answer<wire::RedriveProgress> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let group = self.group(&caller, &asked.queue, &asked.topic, &asked.subscription)?;
        let asked = Asked { positions: chosen(asked.positions), rate: (asked.rate > 0).then_some(asked.rate) };
        answer(redrive::begin(&self.0, group, asked).await.map(progress))
    }

    async fn get_redrive(&self, request: Request<wire::GetRedriveRequest>) -> Answer<wire::RedriveProgress> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let group = self.group(&caller, &asked.queue, &asked.topic, &asked.subscription)?;
        answer(redrive::show(&self.0, &group).map(progress))
    }

    async fn cancel_redrive(&self, request: Request<wire::CancelRedriveRequest>) -> Answer<wire::RedriveProgress> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let group = self.group(&caller, &asked.queue, &asked.topic, &asked.subscription)?;
        answer(redrive::cancel(&self.0, &group).await.map(progress))
    }
}

fn progress(progress: Progress) -> wire::RedriveProgress {
    let state = match progress.state {
        redrive::State::Running => wire::RedriveState::Running,
        redrive::State::Done => wire::RedriveState::Done,
        redrive::State::Cancelled => wire::RedriveState::Cancelled,
        redrive::State::Failed => wire::RedriveState::Failed,
    };
    wire::RedriveProgress {
        redriven: progress.redriven,
        state: state.into(),
        remaining: progress.remaining,
        rate: progress.rate,
        began_ms: progress.began_ms,
        failure: progress.failure.unwrap_or_default(),
    }
}
