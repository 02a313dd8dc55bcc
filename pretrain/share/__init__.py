"""What leaves the house: encoders as ONNX, folders on the Hugging Face Hub."""
