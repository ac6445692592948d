//! The same text is computed once: repeats inside a request, and texts that another request is waiting for at
//! this moment. A flight belongs to all its passengers, whichever of them moves it on: a caller who hangs up never
//! fails those who joined; when all have left, it stops. It is no task of its own, because for a lone request, the
//! usual one, the hop to another thread is most of what a gateway costs.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, Fault, Identity, InputFault, SpaceId,
};
use futures_util::{
    FutureExt as _,
    future::{Shared, try_join_all},
};

use crate::{
    cache::{Key, Keys, Scope, variant},
    subset,
    wrapper::passed_on,
};

/// Shares flights between requests.
pub struct SingleFlight {
    inner: Arc<dyn Embedder>,
    scope: Scope,
    board: Arc<Board>,
}

/// The flights under way, by text.
#[derive(Default)]
struct Board(Mutex<HashMap<Key, Seat>>);

/// A row of a flight. The board does not keep a flight alive, its passengers do.
#[derive(Clone)]
struct Seat {
    flight: Weak<Flight>,
    row: usize,
}

struct Flight {
    landed: Shared<BoxFuture<'static, Arc<Landed>>>,
}

/// What a flight brought, and which of its texts were cut.
struct Landed {
    outcome: Result<Embeddings, EmbedError>,
    cut: Vec<bool>,
}

/// Where one distinct text of a request is computed.
struct Ticket {
    flight: Arc<Flight>,
    row: usize,
    /// Whether another request began it.
    joined: bool,
}

impl SingleFlight {
    /// Around `inner`; `scope` says whether tenants share flights.
    pub fn new(inner: Arc<dyn Embedder>, scope: Scope) -> Self {
        Self { inner, scope, board: Arc::default() }
    }

    /// Keys of all inputs. Without an identity (a model that is not loaded) the name has to do: a flight does
    /// not outlive the model.
    fn keys(&self, request: &EmbedRequest) -> Vec<Key> {
        let identity = self
            .inner
            .identity()
            .unwrap_or_else(|| Identity { space: SpaceId::new("unknown"), precision: None });
        let keys = Keys::new(&*self.inner, &identity, request, self.scope);
        // What does not change a vector may still change how a flight ends, and how soon.
        let manner = [u8::from(request.partial), request.context.priority as u8];
        request
            .inputs
            .iter()
            .map(|input| {
                *blake3::Hasher::new().update(&keys.for_input(input)).update(&manner).finalize().as_bytes()
            })
            .collect()
    }

    /// A seat for each distinct text: in a flight under way, if we may `join`, or in a new one for all the rest.
    fn seats(&self, request: &EmbedRequest, distinct: &[(Key, usize)], join: bool) -> Vec<Ticket> {
        let mut board = self.board.lock();
        let under_way: Vec<_> = distinct
            .iter()
            .map(|(key, _)| {
                let seat = board.get(key).filter(|_| join)?;
                Some(Ticket { flight: seat.flight.upgrade()?, row: seat.row, joined: true })
            })
            .collect();
        let own = distinct.iter().zip(&under_way).filter(|(_, seat)| seat.is_none());
        let (keys, places): (Vec<Key>, Vec<usize>) = own.map(|(text, _)| *text).unzip();
        if keys.is_empty() {
            return under_way.into_iter().flatten().collect();
        }
        let flight = self.take_off(request, &keys, &places);
        for (row, key) in keys.into_iter().enumerate() {
            board.insert(key, Seat { flight: Arc::downgrade(&flight), row });
        }
        drop(board);
        let mut row = 0;
        under_way
            .into_iter()
            .map(|seat| {
                seat.unwrap_or_else(|| {
                    row += 1;
                    Ticket { flight: Arc::clone(&flight), row: row - 1, joined: false }
                })
            })
            .collect()
    }

    fn take_off(&self, request: &EmbedRequest, keys: &[Key], places: &[usize]) -> Arc<Flight> {
        let whole = places.len() == request.inputs.len();
        let request = if whole { request.clone() } else { subset::request(request, places) };
        let inner = Arc::clone(&self.inner);
        Arc::new_cyclic(|flight| {
            let leaving =
                Leaving { board: Arc::clone(&self.board), keys: keys.to_vec(), flight: Weak::clone(flight) };
            let landed = async move {
                let inputs = Arc::clone(&request.inputs);
                // A defect fails this flight, not everybody who asks for its outcome.
                let outcome = AssertUnwindSafe(inner.embed(request)).catch_unwind().await;
                let outcome = outcome.unwrap_or_else(|_| Err(EmbedError::internal("the work was lost")));
                // Off the board first: whoever comes from now on finds the vectors in the cache.
                drop(leaving);
                let cut = outcome.as_ref().map_or(Vec::new(), |answer| subset::cut(&*inner, &inputs, answer));
                Arc::new(Landed { outcome, cut })
            };
            Flight { landed: landed.boxed().shared() }
        })
    }

    /// Computes the request's distinct texts, in others' flights too if we may `join`. `None` when those do not
    /// serve us: another caller's text spoiled one, or two met different models on their way.
    async fn fly(&self, request: &EmbedRequest, join: bool) -> Option<Result<Embeddings, EmbedError>> {
        let texts = Texts::of(self.keys(request));
        let tickets = self.seats(request, &texts.distinct, join);
        let landed = match land(&tickets).await {
            Ok(landed) => landed,
            Err((error, ticket)) if ticket.joined && error.fault == Fault::Caller => return None,
            Err((error, ticket)) => return Some(Err(texts.in_request(error, ticket, &tickets))),
        };
        let answer = texts.arrange(&tickets, &landed)?;
        // Who joined a flight has notes of its own.
        if Arc::ptr_eq(&answer.served_by, self.model())
            && let Some(identity) = self.inner.identity()
        {
            request.context.notes.made_by(|| variant(&identity, request).into());
        }
        Some(Ok(answer))
    }
}

/// Waits for each ticket's flight, all of them at the same time, or for the first that fails: its error and the
/// ticket for it.
async fn land(tickets: &[Ticket]) -> Result<Vec<Arc<Landed>>, (EmbedError, &Ticket)> {
    let mut flights: Vec<&Ticket> = Vec::new();
    let mut places = Vec::with_capacity(tickets.len());
    for ticket in tickets {
        let known = flights.iter().position(|known| Arc::ptr_eq(&known.flight, &ticket.flight));
        places.push(known.unwrap_or(flights.len()));
        if known.is_none() {
            flights.push(ticket);
        }
    }
    let landed = try_join_all(flights.into_iter().map(|ticket| async move {
        let landed = ticket.flight.landed.clone().await;
        match &landed.outcome {
            Ok(_) => Ok(landed),
            Err(error) => Err((error.clone(), ticket)),
        }
    }));
    let landed = landed.await?;
    Ok(places.into_iter().map(|place| Arc::clone(&landed[place])).collect())
}

impl Embedder for SingleFlight {
    passed_on!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            if let Some(answer) = self.fly(&request, true).await {
                return answer;
            }
            let alone = self.fly(&request, false).await;
            alone.unwrap_or_else(|| Err(EmbedError::internal("one flight brought vectors of two kinds")))
        })
    }
}

/// The distinct texts of a request.
struct Texts {
    /// The key of each, and where in the request it stands first.
    distinct: Vec<(Key, usize)>,
    /// For each input, which of them it is.
    which: Vec<usize>,
}

impl Texts {
    fn of(keys: Vec<Key>) -> Self {
        let mut distinct: Vec<(Key, usize)> = Vec::with_capacity(keys.len());
        let mut known = HashMap::with_capacity(keys.len());
        let which = keys
            .into_iter()
            .enumerate()
            .map(|(place, key)| {
                *known.entry(key).or_insert_with(|| {
                    distinct.push((key, place));
                    distinct.len() - 1
                })
            })
            .collect();
        Self { distinct, which }
    }

    /// A flight's failure, about the places that its texts have in this request.
    fn in_request(&self, error: EmbedError, of: &Ticket, tickets: &[Ticket]) -> EmbedError {
        if of.joined {
            return error.with_inputs(Vec::new());
        }
        let own = self.distinct.iter().zip(tickets).filter(|(_, ticket)| !ticket.joined);
        let places: Vec<usize> = own.map(|((_, place), _)| *place).collect();
        subset::error(error, &places)
    }

    /// Everybody's rows in this request's order; `None` when they are of different spaces.
    fn arrange(&self, tickets: &[Ticket], landed: &[Arc<Landed>]) -> Option<Embeddings> {
        let first = landed.first()?.outcome.as_ref().ok()?;
        if first.tokens.len() == self.which.len() && tickets.iter().all(|ticket| !ticket.joined) {
            return Some(first.clone()); // one flight, no repeats: the answer as it is
        }
        let (count, dim) = (self.which.len(), first.dim);
        let mut answer = Embeddings {
            data: Vec::with_capacity(count * dim),
            dim,
            space: first.space.clone(),
            tokens: Vec::with_capacity(count),
            billed_tokens: 0,
            truncated: 0,
            failed: Vec::new(),
            served_by: Arc::clone(&first.served_by),
        };
        // What was billed was billed once, to the request that began the flight.
        if let Some(own) = tickets.iter().position(|ticket| !ticket.joined) {
            answer.billed_tokens = landed[own].outcome.as_ref().ok()?.billed_tokens;
        }
        for (place, &text) in self.which.iter().enumerate() {
            let (row, flight) = (tickets[text].row, landed[text].outcome.as_ref().ok()?);
            if flight.dim != dim || flight.space != answer.space {
                return None;
            }
            answer.data.extend_from_slice(flight.data.get(row * dim..(row + 1) * dim)?);
            answer.tokens.push(*flight.tokens.get(row)?);
            answer.truncated += usize::from(*landed[text].cut.get(row)?);
            if let Some((_, failure)) = flight.failed.iter().find(|(failed, _)| *failed == row) {
                let fault = failure.inputs.first().map(|fault| InputFault { index: place, ..*fault });
                answer.failed.push((place, failure.clone().with_inputs(fault.into_iter().collect())));
            }
        }
        Some(answer)
    }
}

/// Takes a flight's texts off the board, however it ends.
struct Leaving {
    board: Arc<Board>,
    keys: Vec<Key>,
    flight: Weak<Flight>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut board = self.board.lock();
        for key in &self.keys {
            // A text whose passengers had all left may be on its way anew.
            if board.get(key).is_some_and(|seat| seat.flight.ptr_eq(&self.flight)) {
                board.remove(key);
            }
        }
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Seat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
