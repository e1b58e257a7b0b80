//! Per-class peak confidences over a window of detections.

#[cfg(feature = "python")]
mod python;
