// A tiny BERT model for the example in README.md, which includes this file.

/// Writes a model of two layers with arbitrary weights to a temporary directory.
fn tiny_model() -> tempfile::TempDir {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let directory = tempfile::TempDir::new().unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(golden.join("tiny").join(file), directory.path().join(file)).unwrap();
    }
    let description = std::fs::read(golden.join("tiny.json")).unwrap();
    let description: serde_json::Value = serde_json::from_slice(&description).unwrap();
    let tensors = description["tensors"].as_object().unwrap().iter().map(|(name, shape)| {
        let shape: Vec<usize> = shape.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect();
        let values = (0..shape.iter().product()).map(|i: usize| ((i * 37 % 101) as f32 - 50.0) / 100.0);
        (name.clone(), shape, values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>())
    });
    let tensors: Vec<_> = tensors.collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    std::fs::write(directory.path().join("model.safetensors"), file).unwrap();
    directory
}
