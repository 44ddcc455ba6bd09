//! The service `Topics`.

use std::sync::Arc;

use api::broker as wire;
use api::broker::seek_request::To;
use model::name::Name;
use model::position::Position;
use tonic::{Request, Response, Status, Streaming};

use super::stream::Receipts;
use super::{caller, missing_event, receipt};
use crate::accept::{Kind, Publisher, accept};
use crate::consume;
use crate::core::Core;
use crate::ledger::lock;
use crate::refusal::Refusal;
use crate::serve::problem::status;
use crate::topic::Target;

/// The service.
pub(super) struct Topics(pub(super) Arc<Core>);

type Answer<T> = Result<Response<T>, Status>;

impl Topics {
    fn state(&self, found: Result<(Name, Name), Refusal>) -> Answer<wire::Subscription> {
        let (topic, name) = found.map_err(|refusal| status(&refusal))?;
        let books = lock(&self.0.ledger.books);
        let held = books.topics.get(&topic).and_then(|held| Some((held, held.subscriptions.get(&name)?)));
        let absent = || status(&Refusal::Absent(format!("{topic} has no subscription {name}")));
        let (held, subscription) = held.ok_or_else(absent)?;
        let (counts, tally) = (subscription.served.deliveries.counts(), &subscription.served.tally);
        Ok(Response::new(wire::Subscription {
            topic: topic.to_string(),
            name: name.to_string(),
            position: held.position(subscription).0,
            lag: held.lag(subscription),
            in_flight: u32::try_from(counts.leased).unwrap_or(u32::MAX),
            dead_letters: counts.dead as u64,
            paused: subscription.paused,
            delivered: tally.delivered.values().sum(),
            redelivered: tally.redelivered,
        }))
    }
}

#[tonic::async_trait]
impl wire::topics_server::Topics for Topics {
    type PublishStreamStream = Receipts<wire::PublishRequest>;

    async fn publish(&self, request: Request<wire::PublishRequest>) -> Answer<wire::Receipt> {
        let publisher = Publisher::new(caller(&request)?);
        let wire::PublishRequest { topic, event } = request.into_inner();
        let event = event.ok_or_else(missing_event);
        let message = event.and_then(|event| accept(&self.0, &publisher, Kind::Topic, &topic, event));
        let receipts = self.0.publish(vec![message.map_err(|refusal| status(&refusal))?]).await;
        let first = receipts.into_iter().next().unwrap_or(Err(Refusal::Ending));
        first.map(|first| Response::new(receipt(first))).map_err(|refusal| status(&refusal))
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<wire::PublishRequest>>,
    ) -> Answer<Self::PublishStreamStream> {
        let caller = caller(&request)?;
        Ok(Response::new(Receipts::new(self.0.clone(), Publisher::new(caller), request.into_inner())))
    }

    async fn read(&self, request: Request<wire::ReadRequest>) -> Answer<wire::ReadResponse> {
        let caller = caller(&request)?;
        let wire::ReadRequest { topic, from, max } = request.into_inner();
        let topic = consume::topic(&self.0, &caller, &topic).map_err(|refusal| status(&refusal))?;
        let read = consume::read(&self.0, &topic, Position(from), max.max(1) as usize).await;
        let (events, next) = read.map_err(|refusal| status(&refusal))?;
        let events = events.into_iter();
        let events = events.map(|(position, event)| wire::Positioned { position: position.0, event: Some(event) });
        Ok(Response::new(wire::ReadResponse { events: events.collect(), next: next.0 }))
    }

    async fn get_subscription(&self, request: Request<wire::SubscriptionRequest>) -> Answer<wire::Subscription> {
        let caller = caller(&request)?;
        let wire::SubscriptionRequest { topic, name } = request.into_inner();
        self.state(consume::subscription(&self.0, &caller, &topic, &name))
    }

    async fn seek(&self, request: Request<wire::SeekRequest>) -> Answer<wire::Subscription> {
        let caller = caller(&request)?;
        let wire::SeekRequest { topic, name, to } = request.into_inner();
        let target = match to {
            Some(To::Position(position)) => Target::Position(Position(position)),
            Some(To::TimeMs(time_ms)) => Target::Time(time_ms),
            Some(To::Earliest(true)) => Target::Earliest,
            Some(To::Latest(true)) => Target::Latest,
            Some(To::Earliest(false) | To::Latest(false)) | None => {
                return Err(status(&Refusal::Invalid("the request does not say where to".to_owned())));
            }
        };
        self.state(consume::seek(&self.0, &caller, &topic, &name, target).await)
    }

    async fn pause(&self, request: Request<wire::PauseRequest>) -> Answer<wire::Subscription> {
        let caller = caller(&request)?;
        let wire::PauseRequest { topic, name, paused } = request.into_inner();
        self.state(consume::pause(&self.0, &caller, &topic, &name, paused).await)
    }
}
