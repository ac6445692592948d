//! What routes may answer besides what each says of itself: whoever asks for a key can refuse it, whoever reads a body can
//! find it too large, too slow or no JSON.

use utoipa::openapi::{
    ContentBuilder, OpenApi, PathItem, Ref, RefOr, ResponseBuilder, path::Operation, response::Response,
};

const KEYED: [(&str, &str); 2] = [
    ("401", "No key, or a wrong one"),
    (
        "429",
        "Too many wrong keys, a rate or a quota used up, or too much work waiting; come back after Retry-After",
    ),
];
const READ: [(&str, &str); 4] = [
    ("400", "A value that cannot be used, or no JSON"),
    ("408", "The body arrived too slowly"),
    ("413", "The body is too large"),
    ("415", "The body is not announced as what it must be"),
];
const FITTED: (&str, &str) = ("422", "The body does not fit the schema");

/// Writes them into the document, where a route has no words of its own.
pub(super) fn document(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        // Below /v1 a body that does not fit is a 400, as OpenAI's clients expect.
        let fits = (!path.starts_with("/v1/")).then_some(FITTED);
        for operation in operations(item) {
            let keyed = operation.security.is_some().then_some(KEYED).into_iter().flatten();
            let read = operation.request_body.is_some().then_some(READ).into_iter().flatten();
            let read = read.chain(operation.request_body.as_ref().and(fits));
            for (status, description) in keyed.chain(read) {
                let responses = &mut operation.responses.responses;
                responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(refusal(description)));
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

fn refusal(description: &str) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    ResponseBuilder::new().description(description).content("application/json", body).build()
}
