//! Request coalescing: equal texts are embedded once, within one request and across concurrent requests. All requests
//! that wait for a call share its future, and each of them can drive it: a caller that disconnects does not fail the
//! others, and the call stops when all of them are gone. The call is not spawned as a task, because for a single
//! request, the usual case, a hop to another thread costs more than the rest of the gateway.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, EmbeddingIdentity, Embeddings, Fault, InputError, SpaceId,
};
use futures_util::{
    FutureExt as _,
    future::{Shared, try_join_all},
};

use crate::{
    batch_parts,
    cache::{Key, Keys, Scope, variant},
    delegate::delegate_embedder,
};

/// Shares calls between requests.
pub struct SingleFlight {
    inner: Arc<dyn Embedder>,
    scope: Scope,
    in_flight: Arc<InFlight>,
}

/// The calls in progress, by text.
#[derive(Default)]
struct InFlight(Mutex<HashMap<Key, InFlightRow>>);

/// One row of a call. The reference is weak: only the waiting requests keep a call alive.
#[derive(Clone)]
struct InFlightRow {
    call: Weak<SharedCall>,
    row: usize,
}

struct SharedCall {
    result: Shared<BoxFuture<'static, Arc<CallResult>>>,
}

/// The result of a call, and for each of its texts whether it was truncated.
struct CallResult {
    embeddings: Result<Embeddings, EmbedError>,
    truncated: Vec<bool>,
}

/// The row of a call that embeds one distinct text of a request.
struct Waiter {
    call: Arc<SharedCall>,
    row: usize,
    /// Whether another request started the call.
    joined: bool,
}

impl SingleFlight {
    /// Wraps `inner`. `scope` decides whether tenants share calls.
    pub fn new(inner: Arc<dyn Embedder>, scope: Scope) -> Self {
        Self { inner, scope, in_flight: Arc::default() }
    }

    /// The keys of all inputs. A model that is not loaded has no identity; its name is enough here, because a call does
    /// not outlive the model.
    fn keys(&self, request: &EmbedRequest) -> Vec<Key> {
        let identity = self
            .inner
            .identity()
            .unwrap_or_else(|| EmbeddingIdentity { space: SpaceId::new("unknown"), precision: None });
        let keys = Keys::new(&*self.inner, &identity, request, self.scope);
        // These options do not change a vector, but they change how a call can fail and how long it waits.
        let options = [u8::from(request.partial), request.context.priority as u8];
        request
            .inputs
            .iter()
            .map(|input| {
                *blake3::Hasher::new().update(&keys.for_input(input)).update(&options).finalize().as_bytes()
            })
            .collect()
    }

    /// Returns a waiter for each distinct text: for a call in progress, if `join` is set, otherwise for a new call with
    /// all remaining texts.
    fn join_or_start(&self, request: &EmbedRequest, distinct: &[(Key, usize)], join: bool) -> Vec<Waiter> {
        let mut in_flight = self.in_flight.lock();
        let joined: Vec<_> = distinct
            .iter()
            .map(|(key, _)| {
                let running = in_flight.get(key).filter(|_| join)?;
                Some(Waiter { call: running.call.upgrade()?, row: running.row, joined: true })
            })
            .collect();
        let own = distinct.iter().zip(&joined).filter(|(_, waiter)| waiter.is_none());
        let (keys, indices): (Vec<Key>, Vec<usize>) = own.map(|(text, _)| *text).unzip();
        if keys.is_empty() {
            return joined.into_iter().flatten().collect();
        }
        let call = self.start_call(request, &keys, &indices);
        for (row, key) in keys.into_iter().enumerate() {
            in_flight.insert(key, InFlightRow { call: Arc::downgrade(&call), row });
        }
        drop(in_flight);
        let mut own_rows = 0_usize..;
        joined
            .into_iter()
            .map(|waiter| {
                waiter.unwrap_or_else(|| Waiter {
                    call: Arc::clone(&call),
                    row: own_rows.next().unwrap_or_default(),
                    joined: false,
                })
            })
            .collect()
    }

    fn start_call(&self, request: &EmbedRequest, keys: &[Key], indices: &[usize]) -> Arc<SharedCall> {
        let is_whole = indices.len() == request.inputs.len();
        let request = if is_whole { request.clone() } else { batch_parts::request(request, indices) };
        let inner = Arc::clone(&self.inner);
        Arc::new_cyclic(|call| {
            let registration = DeregisterOnDrop {
                in_flight: Arc::clone(&self.in_flight),
                keys: keys.to_vec(),
                call: Weak::clone(call),
            };
            let result = async move {
                let inputs = Arc::clone(&request.inputs);
                // A panic fails this call, but must not propagate to all requests that wait for it.
                let embeddings = AssertUnwindSafe(inner.embed(request)).catch_unwind().await;
                let embeddings =
                    embeddings.unwrap_or_else(|_| Err(EmbedError::internal("the embedding call panicked")));
                // Later requests must not join a completed call: they find the vectors in the cache.
                drop(registration);
                let truncated = embeddings
                    .as_ref()
                    .map_or(Vec::new(), |response| batch_parts::truncated_inputs(&*inner, &inputs, response));
                Arc::new(CallResult { embeddings, truncated })
            };
            SharedCall { result: result.boxed().shared() }
        })
    }

    /// Embeds the distinct texts of a request, and joins calls of other requests if `join` is set. `None` if the joined
    /// calls are of no use: an input of another request failed one, or two calls returned different spaces.
    async fn run(&self, request: &EmbedRequest, join: bool) -> Option<Result<Embeddings, EmbedError>> {
        let texts = DistinctInputs::from_keys(self.keys(request));
        let waiters = self.join_or_start(request, &texts.distinct, join);
        let results = match wait_all(&waiters).await {
            Ok(results) => results,
            Err((error, waiter)) if waiter.joined && error.fault == Fault::Caller => return None,
            Err((error, waiter)) => return Some(Err(texts.error_in_request(error, waiter, &waiters))),
        };
        let response = texts.assemble(&waiters, &results)?;
        // A joined call has updated only the stats of the request that started it.
        if Arc::ptr_eq(&response.served_by, self.model())
            && let Some(identity) = self.inner.identity()
        {
            request.context.stats.set_variant(|| variant(&identity, request).into());
        }
        Some(Ok(response))
    }
}

/// Waits for the calls of all waiters concurrently and returns one result per waiter. Returns the first error at once,
/// with a waiter of the call that failed.
async fn wait_all(waiters: &[Waiter]) -> Result<Vec<Arc<CallResult>>, (EmbedError, &Waiter)> {
    let mut calls: Vec<&Waiter> = Vec::new();
    let mut call_of_waiter = Vec::with_capacity(waiters.len());
    for waiter in waiters {
        let known = calls.iter().position(|known| Arc::ptr_eq(&known.call, &waiter.call));
        call_of_waiter.push(known.unwrap_or(calls.len()));
        if known.is_none() {
            calls.push(waiter);
        }
    }
    let results = try_join_all(calls.into_iter().map(|waiter| async move {
        let result = waiter.call.result.clone().await;
        match &result.embeddings {
            Ok(_) => Ok(result),
            Err(error) => Err((error.clone(), waiter)),
        }
    }));
    let results = results.await?;
    Ok(call_of_waiter.into_iter().map(|call| Arc::clone(&results[call])).collect())
}

impl Embedder for SingleFlight {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            if let Some(result) = self.run(&request, true).await {
                return result;
            }
            let result = self.run(&request, false).await;
            result.unwrap_or_else(|| Err(EmbedError::internal("one call returned vectors of two spaces")))
        })
    }
}

/// The distinct texts of a request.
struct DistinctInputs {
    /// The key of each distinct text, and the index of its first input.
    distinct: Vec<(Key, usize)>,
    /// For each input, the index of its text in `distinct`.
    text_of_input: Vec<usize>,
}

impl DistinctInputs {
    fn from_keys(keys: Vec<Key>) -> Self {
        let mut distinct: Vec<(Key, usize)> = Vec::with_capacity(keys.len());
        let mut known = HashMap::with_capacity(keys.len());
        let text_of_input = keys
            .into_iter()
            .enumerate()
            .map(|(index, key)| {
                *known.entry(key).or_insert_with(|| {
                    distinct.push((key, index));
                    distinct.len() - 1
                })
            })
            .collect();
        Self { distinct, text_of_input }
    }

    /// The error of the call of `waiter`, with the input indices of this request. The error of a joined call names no
    /// inputs, because they may be those of another request.
    fn error_in_request(&self, error: EmbedError, waiter: &Waiter, waiters: &[Waiter]) -> EmbedError {
        if waiter.joined {
            return error.with_inputs(Vec::new());
        }
        let own = self.distinct.iter().zip(waiters).filter(|(_, waiter)| !waiter.joined);
        let indices: Vec<usize> = own.map(|((_, index), _)| *index).collect();
        batch_parts::error(error, &indices)
    }

    /// Assembles the response from the rows of all calls, in input order. `None` if their spaces differ.
    fn assemble(&self, waiters: &[Waiter], results: &[Arc<CallResult>]) -> Option<Embeddings> {
        let first = results.first()?.embeddings.as_ref().ok()?;
        if first.tokens.len() == self.text_of_input.len() && waiters.iter().all(|waiter| !waiter.joined) {
            return Some(first.clone()); // one call without repeated texts: the response as it is
        }
        let (inputs, dim) = (self.text_of_input.len(), first.dim);
        let mut response = Embeddings {
            data: Vec::with_capacity(inputs * dim),
            dim,
            space: first.space.clone(),
            tokens: Vec::with_capacity(inputs),
            billed_tokens: 0,
            truncated: 0,
            failed: Vec::new(),
            served_by: Arc::clone(&first.served_by),
        };
        // The request that started a call is billed for it; requests that joined it are not.
        if let Some(own) = waiters.iter().position(|waiter| !waiter.joined) {
            response.billed_tokens = results[own].embeddings.as_ref().ok()?.billed_tokens;
        }
        for (index, &text) in self.text_of_input.iter().enumerate() {
            let (row, part) = (waiters[text].row, results[text].embeddings.as_ref().ok()?);
            if part.dim != dim || part.space != response.space {
                return None;
            }
            response.data.extend_from_slice(part.data.get(row * dim..(row + 1) * dim)?);
            response.tokens.push(*part.tokens.get(row)?);
            response.truncated += usize::from(*results[text].truncated.get(row)?);
            if let Some((_, error)) = part.failed.iter().find(|(failed, _)| *failed == row) {
                let input = error.inputs.first().map(|input| InputError { index, ..*input });
                response.failed.push((index, error.clone().with_inputs(input.into_iter().collect())));
            }
        }
        Some(response)
    }
}

/// Removes the texts of a call from the calls in progress, however the call ends.
struct DeregisterOnDrop {
    in_flight: Arc<InFlight>,
    keys: Vec<Key>,
    call: Weak<SharedCall>,
}

impl Drop for DeregisterOnDrop {
    fn drop(&mut self) {
        let mut in_flight = self.in_flight.lock();
        for key in &self.keys {
            // If all requests of this call were cancelled, a new call may have been registered for the text.
            if in_flight.get(key).is_some_and(|row| row.call.ptr_eq(&self.call)) {
                in_flight.remove(key);
            }
        }
    }
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, InFlightRow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
