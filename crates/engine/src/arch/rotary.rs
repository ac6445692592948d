//! Rotary positions: the angles by which a head's pairs of numbers turn from one position to the next.

use crate::{LoadError, files::Config};

/// θ^(-2i/w) for each of the w/2 pairs, in f32 as the references compute them.
pub(super) fn turns(theta: f64, width: usize) -> Vec<f32> {
    (0..width / 2).map(|pair| 1.0 / (theta as f32).powf((2 * pair) as f32 / width as f32)).collect()
}

/// GTE's fixed NTK scaling, which stretches the positions by `factor`: the base grows by it, and what then turns turns
/// less.
pub(super) fn ntk_turns((theta, factor): (f64, f64), width: usize) -> Vec<f32> {
    let less = (factor as f32).powf(2.0 / width as f32);
    turns(theta * factor, width).into_iter().map(|turn| turn / less).collect()
}

/// Heads whose numbers go in pairs.
pub(super) fn even(config: &Config, width: usize) -> Result<usize, LoadError> {
    if width.is_multiple_of(2) {
        return Ok(width);
    }
    Err(config.refused("the heads' width", &width.to_string(), "an even number"))
}

/// The base of the angles, as newer configurations write it (`rope_parameters`), or as older ones do, under `key`.
/// Other kinds of scaling than none are refused.
pub(super) fn theta(config: &Config, key: &str, default: f64) -> Result<f64, LoadError> {
    let parameters = config.below("rope_parameters")?;
    plain(&parameters)?;
    plain(&config.below("rope_scaling")?)?;
    base(config, parameters.number_or("rope_theta", config.number_or(key, default)?)?)
}

/// As [`theta`], where layers of one `kind` have parameters of their own.
pub(super) fn theta_of(config: &Config, kind: &str, (key, default): (&str, f64)) -> Result<f64, LoadError> {
    let parameters = config.below("rope_parameters")?.below(kind)?;
    plain(&parameters)?;
    plain(&config.below("rope_scaling")?)?;
    base(config, parameters.number_or("rope_theta", config.number_or(key, default)?)?)
}

fn plain(parameters: &Config) -> Result<(), LoadError> {
    parameters.only("rope_type", "default")?;
    parameters.only("type", "default")?;
    match parameters.number_or("partial_rotary_factor", 1.0)? {
        1.0 => Ok(()),
        part => {
            Err(parameters.refused("partial_rotary_factor", &part.to_string(), "1: all of a head is turned"))
        }
    }
}

fn base(config: &Config, theta: f64) -> Result<f64, LoadError> {
    if theta >= 1.0 && theta.is_finite() {
        return Ok(theta);
    }
    Err(config.refused("rope_theta", &theta.to_string(), "a number from 1 on"))
}

#[cfg(test)]
mod tests {
    use super::{ntk_turns, turns};

    /// Values of the formulas in f64; the scaled one is that of vLLM's `NTKScalingRotaryEmbedding`.
    #[test]
    fn angles_are_the_references() {
        let near = |found: Vec<f32>, expected: [f64; 4]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) / expected - 1.0).abs() < 1e-6, "{found} {expected}");
            }
        };
        near(turns(10_000.0, 8), [1.0, 0.1, 0.01, 0.001]);
        let scaled = |pair: i32| {
            let exponent = f64::from(2 * pair) / 8.0;
            1.0 / (20_000.0 * 8.0_f64).powf(exponent) / 8.0_f64.powf(2.0 / 8.0)
        };
        near(ntk_turns((20_000.0, 8.0), 8), [0, 1, 2, 3].map(scaled));
    }
}
