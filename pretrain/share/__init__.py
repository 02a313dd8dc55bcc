"""What leaves the house: networks as ONNX, folders on the Hugging Face Hub."""
