//! The error responses that many operations share, each described once. [`document`] adds those that follow from an
//! operation's shape: an operation that requires a key can reject it, one that reads a body can find it too large.
//! The others are groups that an operation names among its responses, after which it may describe a status in its own
//! words.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses, PartialSchema, ToSchema as _,
    openapi::{
        ContentBuilder, OpenApi, PathItem, Ref, RefOr, ResponseBuilder,
        path::{Operation, Parameter, ParameterIn},
        response::Response,
    },
};

use crate::error::ErrorBody;

type Errors = &'static [(&'static str, &'static str)];

/// Of an operation that requires a key.
const WITH_KEY: Errors = &[
    ("401", "No key, or a wrong one"),
    (
        "429",
        "Too many wrong keys, an exhausted rate or quota, or too much work in the queue; retry after Retry-After",
    ),
    ("500", "An internal error of the server"),
];
/// Of an operation with parameters in the query.
const WITH_QUERY: Errors = &[("400", "An invalid parameter")];
/// Of an operation that reads a body.
const WITH_BODY: Errors = &[
    ("400", "An invalid value, or a body that is not JSON"),
    ("408", "The body arrived too slowly"),
    ("413", "The body is too large"),
    ("415", "The body has another content type"),
];
/// Of an operation that reads a body, but not below /v1: OpenAI's clients expect a 400.
const WITH_SCHEMA: Errors = &[("422", "The body does not fit the schema")];

macro_rules! groups {
    ($($(#[$doc:meta])* $name:ident: $errors:expr;)*) => { $(
        $(#[$doc])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                let errors: Errors = $errors;
                errors.iter().map(|(status, text)| ((*status).to_owned(), RefOr::T(response(text)))).collect()
            }
        }
    )* };
}

groups! {
    /// Of operations for administrators.
    AdminErrors: &[("403", "The caller is not an administrator")];
    /// Of operations that call a model.
    ModelErrors: &[
        ("403", "The allow-list does not include this model"),
        ("404", "No provider serves this model"),
        ("502", "The provider sent an invalid response"),
        ("503", "The model is being downloaded or loaded, or is unavailable"),
        ("504", "The response would have come after the deadline"),
    ];
    /// Of operations that bring a model to this machine or remove it.
    ModelAdminErrors: &[
        ("403", "The caller is not an administrator, or the allow-list does not include this model"),
        ("404", "The model is neither on this machine nor on the hub"),
        ("503", "The model, its provider or the hub is unavailable"),
    ];
    /// Of operations that may download a model.
    DownloadErrors: &[("502", "A downloaded file differs from what the hub announced")];
    /// Of operations on all collections.
    StoreErrors: &[("503", "The store of collections is unavailable")];
    /// Of operations on a collection.
    CollectionErrors: &[
        ("404", "No such collection"),
        ("503", "The store of collections is unavailable"),
    ];
    /// Of operations on a collection that call its model.
    EmbedCollectionErrors: &[
        ("403", "The allow-list does not include this model"),
        ("404", "No such collection"),
        ("502", "The provider sent an invalid response"),
        ("503", "The model or the store of collections is unavailable"),
        ("504", "The response would have come after the deadline"),
    ];
    /// Of operations that write to the disk.
    DiskErrors: &[("507", "The disk is full")];
    /// Of operations on all jobs.
    JobStoreErrors: &[("503", "The store of jobs is unavailable")];
    /// Of operations on a job.
    JobErrors: &[
        ("404", "The caller has no such job"),
        ("503", "The store of jobs is unavailable"),
    ];
    /// Of operations on the queue.
    QueueErrors: &[("503", "The queue or the store of jobs is unavailable")];
}

/// Adds the responses that follow from an operation's shape, where it does not describe the status itself.
pub(super) fn document(document: &mut OpenApi) {
    let schemas = &mut document.components.get_or_insert_default().schemas;
    schemas.insert(ErrorBody::name().into_owned(), ErrorBody::schema());
    let mut parts = Vec::new();
    ErrorBody::schemas(&mut parts);
    schemas.extend(parts);
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            let is_query = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(parameter) if matches!(parameter.parameter_in, ParameterIn::Query));
            let has_query = operation.parameters.iter().flatten().any(is_query);
            let has_body = operation.request_body.is_some();
            let groups = [
                (operation.security.is_some(), WITH_KEY),
                (has_body, WITH_BODY),
                (has_query, WITH_QUERY),
                (has_body && !path.starts_with("/v1/"), WITH_SCHEMA),
            ];
            for (status, text) in
                groups.iter().filter(|(applies, _)| *applies).flat_map(|(_, errors)| *errors)
            {
                let responses = &mut operation.responses.responses;
                responses.entry((*status).to_owned()).or_insert_with(|| RefOr::T(response(text)));
            }
        }
    }
}

/// All operations of a path.
pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

fn response(description: &str) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(ErrorBody::name()))).build();
    ResponseBuilder::new().description(description).content("application/json", body).build()
}
