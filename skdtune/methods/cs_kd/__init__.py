"""Class-wise self-knowledge distillation (CS-KD): another image of the class is the teacher."""
